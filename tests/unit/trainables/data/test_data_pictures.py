"""One image file: what its header and end tell, and squares and boxes of its pixels."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms.v2 import functional

from tests.unit.trainables.data.image_folders import picture
from trainables.data.pictures import examine, read_cut, read_square
from trainables.data.resizing import squared


def smooth(width: int, height: int) -> Image.Image:
    """Colours that change slowly, as in photographs."""
    return picture(4, 6, 5).resize((width, height), Image.Resampling.BICUBIC)


def decodes(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError):
        return False
    return True


def test_a_header_tells_size_and_the_content_its_hash(tmp_path: Path) -> None:
    picture(0, 13, 7).save(path := tmp_path / "one.jpg")
    found = examine(path, decode=False)
    assert (found.height, found.width, found.fault) == (7, 13, "")
    assert found.sha256 == hashlib.sha256(path.read_bytes()).digest()


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("missing", [1, 2, 12, 40, 200])
def test_files_cut_short_are_found_without_decoding_whole_ones(
    tmp_path: Path, suffix: str, missing: int
) -> None:
    picture(0, 40, 30).save(path := tmp_path / f"one.{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[:-missing])
    assert bool(examine(path, decode=False).fault) is not decodes(path)
    path.write_bytes(content + b"after the end")
    assert examine(path, decode=False).fault == ""


def test_the_end_of_a_thumbnail_is_not_that_of_a_photograph(tmp_path: Path) -> None:
    picture(0, 16, 16).save(thumbnail := tmp_path / "small.jpg")
    picture(1, 90, 60).save(path := tmp_path / "one.jpg")
    inner, content = b"Exif\0\0" + thumbnail.read_bytes(), path.read_bytes()
    segment = b"\xff\xe1" + (len(inner) + 2).to_bytes(2, "big") + inner
    whole = content[:2] + segment + content[2:]
    path.write_bytes(whole)
    assert examine(path, decode=False).fault == ""
    path.write_bytes(whole[: len(whole) - len(content) // 2])
    assert "truncated" in examine(path, decode=False).fault


@pytest.mark.parametrize(
    ("content", "fault"),
    [(b"", "the file is empty"), (b"GIF8", "it is none of AVIF, BMP,"), (b"\xff\xd8\xff", "")],
)
def test_faults_are_told_in_words(tmp_path: Path, content: bytes, fault: str) -> None:
    (path := tmp_path / "one.gif").write_bytes(content)
    found = examine(path, decode=False)
    assert (found.height, found.width) == (0, 0)
    assert found.fault.startswith(fault) and found.fault


def test_a_file_that_is_gone_has_a_fault_and_no_hash(tmp_path: Path) -> None:
    found = examine(tmp_path / "none.png", decode=False)
    assert "No such file" in found.fault
    assert found.sha256 == b""


@pytest.mark.parametrize("box", [(0, 0, 20, 30), (3, 5, 9, 8), (2, 1, 17, 5), (19, 29, 1, 1)])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_boxes_are_cut_and_resized_as_by_torchvision(
    tmp_path: Path, box: tuple[int, int, int, int], suffix: str
) -> None:
    picture(2, 30, 20).save(path := tmp_path / f"one.{suffix}")
    with Image.open(path) as image:
        expected = np.asarray(functional.resized_crop(image, *box, [8, 8]))
    assert np.array_equal(read_cut(path, box, 8, size=(20, 30)).transpose(1, 2, 0), expected)


def test_a_file_that_has_another_size_than_before_is_refused(tmp_path: Path) -> None:
    picture(2, 30, 20).save(path := tmp_path / "one.png")
    with pytest.raises(ValueError, match="it is 30x20 pixels and was 20x30 when the folder was listed"):
        read_cut(path, (0, 0, 5, 5), 8, size=(30, 20))


@pytest.mark.parametrize("times", [4, 9, 17])
def test_large_jpegs_are_decoded_at_a_part_of_their_size_with_nearly_the_same_pixels(
    tmp_path: Path, times: int
) -> None:
    width, height = 16 * times + 3, 16 * times
    smooth(width, height).save(path := tmp_path / "one.jpg", quality=95)
    whole = read_square(path, 16)
    drafted = read_square(path, 16, draft=True)
    assert not np.array_equal(drafted, whole)
    assert np.abs(drafted.astype(int) - whole).max() <= 8
    box = (0, 1, height, width - 2)
    with Image.open(path) as image:
        expected = np.asarray(functional.resized_crop(image, *box, [16, 16])).transpose(2, 0, 1)
    cut = read_cut(path, box, 16, size=(height, width))
    assert np.abs(cut.astype(int) - expected).max() <= 8


@pytest.mark.parametrize(("suffix", "times"), [("jpg", 3), ("png", 9)])
def test_other_images_are_decoded_whole(tmp_path: Path, suffix: str, times: int) -> None:
    image = smooth(16 * times, 16 * times + 5)
    image.save(path := tmp_path / f"one.{suffix}")
    with Image.open(path) as found:
        expected = np.asarray(squared(found.convert("RGB"), 16)).transpose(2, 0, 1)
    assert np.array_equal(read_square(path, 16, draft=True), expected)
