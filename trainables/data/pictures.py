"""One image file: what can be known without decoding it, and the pixels that are wanted of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from trainables.data.resizing import Resize, centred, eight_bit, require_eight_bits, scaled, squared
from trainables.errors import UnreadableData
from trainables.foreign_files import Unreadable, foreign_file

FORMATS: Final = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded, by Pillow's names, whatever a file is called.

Pillow knows more: it would hand PostScript to an interpreter, which is how a file named as an image runs as a
program, and take any bytes for one of the formats that have no mark of their own.
"""
DRAFT_SCALES: Final = (8, 4, 2)
"""By which libjpeg can divide the sides while it decodes, which saves most of the work."""
LEFT_AFTER_DRAFT: Final = 2
"""How many times the wanted size is left for the filter, whose result then hardly differs."""
NAMED: Final = 5
"""How many unreadable images a message names."""

TURNS: Final[Mapping[int, Image.Transpose]] = MappingProxyType(
    {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
)
"""What brings an image upright, by its EXIF orientation."""
_FROM_THE_RIGHT: Final = frozenset({2, 3, 6, 7})
_FROM_BELOW: Final = frozenset({3, 4, 7, 8})
_ON_ITS_SIDE: Final = 5
"""From this orientation on, height and width change places."""

Mode = Literal["RGB", "L"]
"""Pillow's names of colours, and of grey."""
Box = tuple[int, int, int, int]
"""Top, left, height and width in pixels."""

# C = channels, S = wanted side


class Encoded(Protocol):
    """Where an image lies: a `Path`, or a stretch of a larger file."""

    def read_bytes(self) -> bytes:
        """All of it, as it was written."""
        ...


@dataclass(frozen=True)
class Picture:
    """What a file says of itself."""

    sha256: bytes
    """Of the whole file; empty when it cannot be read at all."""
    height: int
    """In pixels, of the upright image; 0 when there is a fault."""
    width: int
    fault: str
    """Why it cannot be used; empty when nothing speaks against it."""
    orientation: int = 1
    """As in EXIF; 1 is upright as it is."""


def examine(place: Encoded, *, decode: bool) -> Picture:
    """The header of an image file and the hash of its content, from one read.

    Pixels are decoded only with `decode`, or when the file looks cut short: that tells whether it is.
    """
    content, sha256 = b"", b""
    try:
        with foreign_file(Unreadable):
            content = place.read_bytes()
            sha256 = hashlib.sha256(content).digest()
            with Image.open(BytesIO(content), formats=FORMATS) as image:
                require_eight_bits(image.mode)
                size = image.size
                if decode or not _has_its_end(content, image.format):
                    image.load()
                orientation = _orientation(image) if _may_be_turned(content, image.format) else 1
    except Unreadable as error:
        return Picture(sha256, 0, 0, _reason(error, content))
    width, height = _upright_size(size, orientation)
    return Picture(sha256, height, width, "", orientation)


def read_square(
    place: Encoded, side: int, *, draft: bool = False, resize: Resize = None, mode: Mode = "RGB"
) -> NDArray[np.uint8]:
    """uint8 CxSxS: upright, the shorter side brought to `side`, or as `resize` says, then the centre.

    With `draft`, a JPEG that is four times as large or more is decoded at a part of its size. `mode` L gives
    one channel of grey.
    """
    with _opened(place) as image:
        size = image.size
        scale = _draft(image, min(size) // max(side, _shorter(resize))) if draft else 1
        upright, (width, height), orientation = _upright(image, size, mode)
    if scale == 1:
        return _channels_first(squared(upright, side, resize))
    edges = _reduced((0, 0, height, width), (width, height), scale, upright, orientation)
    small = upright.resize(scaled((width, height), side, resize), Image.Resampling.BILINEAR, box=edges)
    return _channels_first(centred(small, side))


def read_whole(place: Encoded, *, mode: Mode = "RGB") -> NDArray[np.uint8]:
    """uint8 CxHxW: an image file, upright and of its own size."""
    with _opened(place) as image:
        return _channels_first(_upright(image, image.size, mode)[0])


def upright_size(place: Encoded) -> tuple[int, int]:
    """Width and height in pixels of the upright image in a file."""
    with _opened(place) as image:
        return _upright_size(image.size, _orientation(image))


def _channels_first(image: Image.Image) -> NDArray[np.uint8]:
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def read_cut(place: Encoded, box: Box, side: int, *, size: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8 CxSxS RGB: a box of the upright image, brought to `side` on both sides (antialiased bilinear).

    The same pixels as torchvision's `resized_crop` gives for a Pillow image; but a box of a JPEG that is four
    times as large as wanted, or more, is decoded at a part of its size. `size` is the height and width for
    which the box was drawn.

    Raises:
        ValueError: the image has another size.
    """
    top, left, height, width = box
    with _opened(place) as image:
        whole = image.size
        scale = _draft(image, min(height, width) // side)
        rgb, (now_wide, now_high), orientation = _upright(image, whole)
    if (now_high, now_wide) != size:
        raise ValueError(
            f"it is {now_wide}x{now_high} pixels and was {size[1]}x{size[0]} when the folder was "
            "listed; start again"
        )
    if scale == 1:  # cut first, so that the filter does not see what lies around the box
        cut = rgb.crop((left, top, left + width, top + height))
        pixels = np.asarray(cut.resize((side, side), Image.Resampling.BILINEAR))
    else:
        edges = _reduced(box, (now_wide, now_high), scale, rgb, orientation)
        pixels = np.asarray(rgb.resize((side, side), Image.Resampling.BILINEAR, box=edges))
    return pixels.transpose(2, 0, 1)


def unreadable(failures: Sequence[str], count: int) -> UnreadableData:
    """The error about images that cannot be read, `count` of which were wanted; the first few are named."""
    more = f" and {len(failures) - NAMED} more" if len(failures) > NAMED else ""
    return UnreadableData(
        f"{len(failures)} of {count} images cannot be read: {'; '.join(failures[:NAMED])}{more}; "
        "repair or remove them, or set `skip_unreadable: true` to leave them out"
    )


def _opened(place: Encoded) -> Image.Image:
    source = place if isinstance(place, Path) else BytesIO(place.read_bytes())
    try:
        return Image.open(source, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ValueError(_another_kind(place.read_bytes())) from error


def _upright(
    image: Image.Image, size: tuple[int, int], mode: Mode = "RGB"
) -> tuple[Image.Image, tuple[int, int], int]:
    """The image as its camera was held, what width and height of the whole then are, and how it lay.

    Alpha is dropped and of an animation the first frame is taken, as torchvision does.
    """
    image.info.pop("transparency", None)  # Pillow would warn of each palette that has it
    pixels = eight_bit(image, mode)
    orientation = _orientation(image)  # after decoding, since PNG may hold it behind the pixels
    turn = TURNS.get(orientation)
    return (pixels if turn is None else pixels.transpose(turn)), _upright_size(size, orientation), orientation


def _reduced(
    box: Box, size: tuple[int, int], scale: int, rgb: Image.Image, orientation: int
) -> tuple[float, float, float, float]:
    """Edges of a box of an upright image of this size in one decoded at a part of it.

    That has whole pixels only, so the last ones of its rows and columns reach over the edge; where it was
    turned, these are the first.
    """
    top, left, height, width = box
    right = rgb.width - size[0] / scale if orientation in _FROM_THE_RIGHT else 0.0
    below = rgb.height - size[1] / scale if orientation in _FROM_BELOW else 0.0
    x, y = right + left / scale, below + top / scale
    return x, y, x + width / scale, y + height / scale


def _upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    return (size[1], size[0]) if orientation >= _ON_ITS_SIDE else size


def _orientation(image: Image.Image) -> int:
    """As EXIF or XMP tell it; 1 where they do not, or are damaged: the pixels are sound all the same."""
    if image.format == "TIFF":  # which Pillow turns by itself when it decodes
        return 1
    with suppress(Unreadable), foreign_file(Unreadable):
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
        return found if found in TURNS else 1
    return 1


def _may_be_turned(content: bytes, format_name: str | None) -> bool:
    """False for a PNG without EXIF and XMP; Pillow would decode it all to look for them behind the pixels."""
    if format_name != "PNG":
        return True
    return b"eXIf" in content or b"Raw profile type" in content or b"XML:com.adobe.xmp" in content


def _shorter(resize: Resize) -> int:
    return resize if isinstance(resize, int) else 0


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
        return _another_kind(content)
    return str(error)


def _another_kind(content: bytes) -> str:
    return f"it is none of {', '.join(FORMATS)}" if content else "the file is empty"
