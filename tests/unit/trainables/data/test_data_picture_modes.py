"""Every kind of image file gives the picture that Pillow and torchvision give, or a refusal by name."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torchvision.datasets.folder import pil_loader

from tests.unit.trainables.data.image_folders import config_of, picture, write_folder
from trainables.data import load_training
from trainables.data.layouts.rows import Stretch
from trainables.data.pictures import examine, read_cut, read_square
from trainables.data.resizing import EIGHT_BIT_MODES, squared

SIDE = 8
LOSSY = {"jpg", "webp"}


def expected(path: Path) -> NDArray[np.uint8]:
    """By torchvision's own loader, turned upright."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        if image.getexif().get(0x0112, 1) == 1:
            assert np.array_equal(np.asarray(upright.convert("RGB")), np.asarray(pil_loader(str(path))))
        return np.asarray(squared(upright.convert("RGB"), SIDE)).transpose(2, 0, 1)


def png(colour_type: int, depth: int, rows: bytes, *, width: int, height: int) -> bytes:
    """A PNG written by hand, since Pillow writes no colours of 16 bits; `rows` are without filter bytes."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    stride = len(rows) // height
    lines = b"".join(b"\0" + rows[place : place + stride] for place in range(0, len(rows), stride))
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("1", "png"), ("L", "png"), ("LA", "png"), ("P", "png"), ("RGB", "png"), ("RGBA", "png"),
        ("1", "tif"), ("L", "tif"), ("P", "tif"), ("RGBA", "tif"), ("CMYK", "tif"),
        ("PA", "tif"),
        ("L", "jpg"), ("RGB", "jpg"), ("CMYK", "jpg"), ("YCbCr", "jpg"),
        ("P", "gif"), ("L", "gif"), ("RGB", "webp"), ("RGBA", "webp"),
        ("1", "bmp"), ("L", "bmp"), ("P", "bmp"), ("RGB", "bmp"), ("RGBA", "bmp"),
        ("L", "ppm"), ("RGB", "ppm"),
    ],
)  # fmt: skip
def test_each_mode_of_eight_bits_gives_torchvisions_picture(tmp_path: Path, mode: str, suffix: str) -> None:
    source = picture(3, 20, 14)
    if mode == "PA":
        source = source.convert("P")
    source.convert(mode).save(path := tmp_path / f"one.{suffix}")
    found = examine(path, decode=False)
    assert (found.fault, found.height, found.width) == ("", 14, 20)
    assert np.array_equal(read_square(path, SIDE), expected(path))
    within = tmp_path / "larger"
    within.write_bytes(b"before" + path.read_bytes() + b"behind")
    part = Stretch(within, 6, path.stat().st_size)
    assert examine(part, decode=True) == examine(path, decode=True)
    assert np.array_equal(read_square(part, SIDE), expected(path))


def test_transparent_colours_are_kept_and_alpha_is_dropped_without_a_warning(tmp_path: Path) -> None:
    alpha = picture(4, 20, 14).convert("RGBA")
    alpha.putalpha(Image.fromarray(np.tile(np.arange(0, 200, 10, dtype=np.uint8), (14, 1))))
    alpha.save(tmp_path / "alpha.png")
    palette = picture(5, 20, 14).convert("P")
    palette.save(tmp_path / "bytes.png", transparency=bytes(range(256)))
    palette.save(tmp_path / "index.png", transparency=3)
    palette.save(tmp_path / "one.gif", transparency=3)
    picture(6, 20, 14).save(tmp_path / "colour.png", transparency=(1, 2, 3))
    for path in sorted(tmp_path.iterdir()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wanted = expected(path)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.array_equal(read_square(path, SIDE), wanted), path.name


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path, suffix: str) -> None:
    frames = [picture(seed, 20, 14) for seed in (1, 2, 3)]
    frames[0].save(path := tmp_path / f"one.{suffix}", save_all=True, append_images=frames[1:], lossless=True)
    with Image.open(path) as image:
        assert getattr(image, "n_frames", 1) == 3
    assert np.array_equal(read_square(path, SIDE), expected(path))
    assert examine(path, decode=True).fault == ""


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_colours_of_sixteen_bits_lose_their_lower_eight(
    tmp_path: Path, colour_type: int, channels: int
) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (8, 8, channels), dtype=np.uint16)
    content = png(colour_type, 16, values.astype(">u2").tobytes(), width=8, height=8)
    (path := tmp_path / "deep.png").write_bytes(content)
    high = (values >> 8).astype(np.uint8)
    wanted = np.repeat(high[..., :1], 3, axis=2) if channels == 2 else high[..., :3]
    assert np.array_equal(read_square(path, SIDE).transpose(1, 2, 0), wanted)


@pytest.mark.parametrize(
    ("mode", "suffix", "says"),
    [
        ("I;16", "png", "mode I;16 has more than 8 bits per channel; convert it to 8 bits"),
        ("I", "tif", "mode I has more than 8 bits per channel; convert it to 8 bits"),
        ("F", "tif", "mode F has more than 8 bits per channel; convert it to 8 bits"),
        ("LAB", "tif", "mode LAB has colours that cannot be brought to RGB; convert it to RGB"),
    ],
)
def test_what_pillow_would_clip_or_cannot_convert_is_refused_by_name(
    tmp_path: Path, mode: str, suffix: str, says: str
) -> None:
    image = Image.new(mode, (9, 9)) if mode == "LAB" else picture(1).convert("L").convert(mode)
    image.save(path := tmp_path / f"one.{suffix}")
    assert examine(path, decode=False).fault == says
    with pytest.raises(ValueError, match=says.split(";")[0]):
        read_square(path, SIDE)


def turned(path: Path, orientation: int, image: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif, lossless=True)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_exif_orientation_turns_the_picture_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    turned(path := tmp_path / f"one.{suffix}", orientation, picture(2, 30, 20))
    wide, high = (20, 30) if orientation >= 5 else (30, 20)
    for decode in (False, True):
        found = examine(path, decode=decode)
        assert (found.fault, found.width, found.height) == ("", wide, high)
    assert np.array_equal(read_square(path, SIDE), expected(path))
    part = Stretch(path, 0, path.stat().st_size)
    assert np.array_equal(read_square(part, SIDE), expected(path))
    box = (3, 5, 9, 8)
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    cut = upright.crop((5, 3, 13, 12)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    found_cut = read_cut(path, box, SIDE, size=(high, wide)).transpose(1, 2, 0)
    assert np.array_equal(found_cut, np.asarray(cut))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_large_jpegs_that_are_decoded_at_a_part_are_turned_too(tmp_path: Path, orientation: int) -> None:
    smooth = picture(4, 6, 5).resize((190, 130), Image.Resampling.BICUBIC)
    turned(path := tmp_path / "one.jpg", orientation, smooth)
    drafted = read_square(path, SIDE, draft=True)
    assert np.abs(drafted.astype(int) - expected(path)).max() <= 8
    high, wide = (190, 130) if orientation >= 5 else (130, 190)
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    wanted = np.asarray(upright.resize((SIDE, SIDE), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    found = read_cut(path, (0, 0, high, wide), SIDE, size=(high, wide))
    assert np.abs(found.astype(int) - wanted).max() <= 8


def test_orientation_behind_the_pixels_of_a_png_and_in_xmp_is_found(tmp_path: Path) -> None:
    picture(2, 30, 20).save(buffer := io.BytesIO(), "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
    content = buffer.getvalue()
    end = content.rindex(b"IEND") - 4
    (path := tmp_path / "behind.png").write_bytes(content[:end] + chunk + content[end:])
    assert (examine(path, decode=False).width, examine(path, decode=False).orientation) == (20, 6)
    assert np.array_equal(read_square(path, SIDE), expected(path))


@pytest.mark.parametrize("value", [0, 9, 300])
def test_an_orientation_that_means_nothing_leaves_the_picture_as_it_is(tmp_path: Path, value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    picture(2, 30, 20).save(path := tmp_path / "one.jpg", exif=exif)
    assert examine(path, decode=False).orientation == 1
    assert np.array_equal(read_square(path, SIDE), read_square(path, SIDE, draft=True))


def test_damaged_exif_does_not_make_a_sound_picture_unreadable(tmp_path: Path) -> None:
    picture(2, 30, 20).save(path := tmp_path / "one.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xffgarbage")
    assert examine(path, decode=True).fault == ""
    assert read_square(path, SIDE).shape == (3, SIDE, SIDE)


def test_turned_images_have_another_digest_in_files_and_the_pixels_of_those_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    root = write_folder(tmp_path / "pictures", suffix="jpg")
    before = load_training(config_of(root)).digest
    assert before == digest_of_an_earlier_version(root)
    for path in sorted((root / "train").rglob("*.jpg")):
        with Image.open(path) as image:
            pixels = image.copy()
        turned(path, 6, pixels)
    in_files, in_memory = load_training(config_of(root)), load_training(config_of(root, memory_gb=4))
    assert torch.equal(in_files.train.images[:], in_memory.train.images[:])
    assert in_files.digest != digest_of_an_earlier_version(root)


def digest_of_an_earlier_version(root: Path) -> str:
    """Written out, since the caches of finished runs are known by it."""
    split = load_training(config_of(root)).train
    files = sorted(path.relative_to(root / "train").as_posix() for path in (root / "train").rglob("*.jpg"))
    chosen = [files[row] for row in split.ids.tolist()]
    contents = [(root / "train" / name).read_bytes() for name in chosen]
    digest = hashlib.sha256(json.dumps(["image_folder", 1, len(chosen), 3, SIDE, SIDE]).encode())
    digest.update("".join(f"{name}\0" for name in chosen).encode())
    digest.update(np.array([len(content) for content in contents], dtype=np.int64).tobytes())
    digest.update(b"".join(hashlib.sha256(content).digest() for content in contents))
    digest.update(split.labels.numpy().tobytes() + split.ids.numpy().tobytes())
    return digest.hexdigest()


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif"])
@pytest.mark.parametrize("kind", ["EPS", "TGA", "SGI", "PCX", "PostScript", "text", "archive"])
def test_files_of_another_kind_are_found_by_their_headers_whatever_they_are_called(
    tmp_path: Path, kind: str, suffix: str
) -> None:
    path = tmp_path / f"one.{suffix}"
    others = {"PostScript": POSTSCRIPT, "text": b"not a picture", "archive": b"PK\3\4" + bytes(40)}
    if kind in others:
        path.write_bytes(others[kind])
    else:
        picture(1).save(path, kind)
    assert examine(path, decode=False).fault.startswith("it is none of AVIF, BMP, DIB, GIF, JPEG")
    with pytest.raises(ValueError, match="it is none of AVIF, BMP, DIB, GIF, JPEG"):
        read_square(path, SIDE)


@pytest.mark.parametrize(
    "kind", ["AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP"]
)
def test_a_kind_that_is_decoded_is_so_under_any_name(tmp_path: Path, kind: str) -> None:
    picture(1, 20, 14).save(path := tmp_path / "one.png", kind)
    assert examine(path, decode=True).fault == ""
    assert np.array_equal(read_square(path, SIDE), expected(path))


def test_all_modes_that_count_as_eight_bits_are_brought_to_rgb() -> None:
    for mode in EIGHT_BIT_MODES:
        assert Image.new(mode, (2, 2)).convert("RGB").mode == "RGB"
