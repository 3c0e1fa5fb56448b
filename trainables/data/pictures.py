"""One image file: what can be known without decoding it, and the pixels that are wanted of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from trainables.data.resizing import centred, eight_bit, require_eight_bits, scaled, squared
from trainables.errors import UnreadableData
from trainables.foreign_files import Unreadable, foreign_file

DRAFT_SCALES: Final = (8, 4, 2)
"""By which libjpeg can divide the sides while it decodes, which saves most of the work."""
LEFT_AFTER_DRAFT: Final = 2
"""How many times the wanted size is left for the filter, whose result then hardly differs."""
NAMED: Final = 5
"""How many unreadable images a message names."""

Box = tuple[int, int, int, int]
"""Top, left, height and width in pixels."""

# C = channels, S = wanted side


@dataclass(frozen=True)
class Picture:
    """What a file says of itself."""

    sha256: bytes
    """Of the whole file; empty when it cannot be read at all."""
    height: int
    """In pixels; 0 when there is a fault."""
    width: int
    fault: str
    """Why it cannot be used; empty when nothing speaks against it."""


def examine(path: Path, *, decode: bool) -> Picture:
    """The header of a file and the hash of its content, from one read.

    Pixels are decoded only with `decode`, or when the file looks cut short: that tells whether it is.
    """
    content, sha256 = b"", b""
    try:
        with foreign_file(Unreadable):
            content = path.read_bytes()
            sha256 = hashlib.sha256(content).digest()
            with Image.open(BytesIO(content)) as image:
                require_eight_bits(image.mode)
                width, height = image.size
                if decode or not _has_its_end(content, image.format):
                    image.load()
    except Unreadable as error:
        return Picture(sha256, 0, 0, _reason(error, content))
    return Picture(sha256, height, width, "")


def read_square(path: Path, side: int, *, draft: bool = False) -> NDArray[np.uint8]:
    """uint8 CxSxS RGB: the shorter side brought to `side`, then the centre.

    With `draft`, a JPEG that is four times as large or more is decoded at a part of its size.
    """
    with Image.open(path) as image:
        width, height = image.size
        scale = _draft(image, min(image.size) // side) if draft else 1
        rgb = eight_bit(image, "RGB")
    if scale == 1:
        return np.asarray(squared(rgb, side)).transpose(2, 0, 1)
    edges = (0, 0, width / scale, height / scale)
    small = rgb.resize(scaled((width, height), side), Image.Resampling.BILINEAR, box=edges)
    return np.asarray(centred(small, side)).transpose(2, 0, 1)


def read_cut(path: Path, box: Box, side: int, *, size: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8 CxSxS RGB: a box of the image, brought to `side` on both sides (antialiased bilinear).

    The same pixels as torchvision's `resized_crop` gives for a Pillow image; but a box of a JPEG that is four
    times as large as wanted, or more, is decoded at a part of its size. `size` is the height and width for
    which the box was drawn.

    Raises:
        ValueError: the image has another size.
    """
    top, left, height, width = box
    with Image.open(path) as image:
        if (image.height, image.width) != size:
            raise ValueError(
                f"it is {image.width}x{image.height} pixels and was {size[1]}x{size[0]} when the folder was "
                "listed; start again"
            )
        scale = _draft(image, min(height, width) // side)
        rgb = eight_bit(image, "RGB")
    if scale == 1:  # cut first, so that the filter does not see what lies around the box
        cut = rgb.crop((left, top, left + width, top + height))
        pixels = np.asarray(cut.resize((side, side), Image.Resampling.BILINEAR))
    else:
        edges = (left / scale, top / scale, (left + width) / scale, (top + height) / scale)
        pixels = np.asarray(rgb.resize((side, side), Image.Resampling.BILINEAR, box=edges))
    return pixels.transpose(2, 0, 1)


def unreadable(failures: Sequence[str], count: int) -> UnreadableData:
    """The error about images that cannot be read, `count` of which were wanted; the first few are named."""
    more = f" and {len(failures) - NAMED} more" if len(failures) > NAMED else ""
    return UnreadableData(
        f"{len(failures)} of {count} images cannot be read: {'; '.join(failures[:NAMED])}{more}; "
        "repair or remove them, or set `skip_unreadable: true` to leave them out"
    )


def _draft(image: Image.Image, ratio: int) -> int:
    """Have a JPEG decoded at a part of its size, if it is `ratio` times as large as wanted; by how much."""
    width, height = image.size
    for scale in DRAFT_SCALES:
        if ratio >= LEFT_AFTER_DRAFT * scale:
            drafted = image.draft(None, (width // scale, height // scale))
            return 1 if drafted is None else round(width / drafted[1][2])
    return 1


def _has_its_end(content: bytes, format_name: str | None) -> bool:
    """False where the end of a JPEG or PNG is missing; other formats are not looked into."""
    match format_name:
        case "JPEG" | "MPO":
            return content.find(b"\xff\xd9", _first_scan(content)) >= 0
        case "PNG":
            return content.rfind(b"IEND") >= 0
    return True


def _first_scan(content: bytes) -> int:
    """Where a JPEG's first scan begins (ISO/IEC 10918-1, B.1); thumbnails, with own ends, lie before it."""
    place = 2
    while content[place : place + 1] == b"\xff" and content[place + 1 : place + 2] != b"\xda":
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return place


def _reason(error: Unreadable, content: bytes) -> str:
    if isinstance(error.__cause__, UnidentifiedImageError):  # its own text names a buffer in memory
        return "no image that Pillow knows" if content else "the file is empty"
    return str(error)
