"""How images become squares where `data.resize` says it: as the library of a teacher does it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torchvision.transforms import functional

from orchestrator.pipeline.export import preparation
from tests.unit.trainables.data.image_folders import config_of, picture, write_folder
from trainables.config import DataConfig, DataName
from trainables.data import load_training
from trainables.data.folder_images import FolderImages
from trainables.data.pictures import read_square
from trainables.data.resizing import Resize, resized, squared


@pytest.mark.parametrize(("width", "height"), [(37, 20), (20, 37), (8, 30), (16, 16), (20, 20)])
def test_a_larger_shorter_side_is_torchvisions_resize_and_centre_crop(width: int, height: int) -> None:
    image = picture(3, width, height)
    expected = functional.center_crop(functional.resize(image, [20]), [16])
    assert np.array_equal(np.asarray(squared(image, 16, 20)), np.asarray(expected))


@pytest.mark.parametrize(("width", "height"), [(37, 20), (8, 30), (16, 16)])
def test_stretched_images_lose_nothing_at_their_edges(width: int, height: int) -> None:
    image = picture(3, width, height)
    expected = functional.resize(image, [16, 16])
    assert np.array_equal(np.asarray(squared(image, 16, "stretch")), np.asarray(expected))


@pytest.mark.parametrize("resize", [10, "stretch"])
def test_arrays_are_resized_as_pictures_are(resize: Resize) -> None:
    images = torch.randint(0, 256, (3, 3, 9, 12), dtype=torch.uint8)
    expected = [
        np.asarray(squared(Image.fromarray(image.permute(1, 2, 0).numpy()), 8, resize)) for image in images
    ]
    found = resized(images, 8, resize).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(found, np.stack(expected))


def test_images_of_the_wanted_size_are_enlarged_before_their_middle_is_cut() -> None:
    images = torch.randint(0, 256, (1, 1, 8, 8), dtype=torch.uint8)
    assert not torch.equal(resized(images, 8, 12), images)
    assert resized(images, 8, "stretch") is images


@pytest.mark.parametrize("resize", [11, "stretch"])
def test_a_folder_is_resized_alike_in_memory_and_in_its_files_and_is_other_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resize: Resize
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    root = write_folder(tmp_path / "pictures")
    in_files = load_training(config_of(root, resize=resize))
    in_memory = load_training(config_of(root, resize=resize, memory_gb=4.0))
    assert isinstance(in_files.train.images, FolderImages)
    assert torch.equal(in_files.train.images[:], in_memory.train.images[:])
    default = load_training(config_of(root))
    assert not torch.equal(default.train.images[:], in_files.train.images[:])
    assert default.digest != in_files.digest


def test_a_large_jpeg_is_decoded_at_a_part_of_its_size_that_suffices(tmp_path: Path) -> None:
    gradient = np.linspace(0, 255, 400, dtype=np.uint8)
    Image.fromarray(np.stack([np.tile(gradient, (300, 1))] * 3, axis=2)).save(tmp_path / "large.jpg")
    for resize in (40, "stretch"):
        whole = read_square(tmp_path / "large.jpg", 32, resize=resize).astype(int)
        drafted = read_square(tmp_path / "large.jpg", 32, draft=True, resize=resize).astype(int)
        assert np.abs(whole - drafted).max() <= 3


def test_the_card_says_how_images_were_brought_to_their_size() -> None:
    for resize, shorter in ((None, 24), (32, 32), ("stretch", None)):
        data = DataConfig.from_plain({"name": "digits", "image_size": 24, "resize": resize})
        said = preparation(data, (1, 24, 24)).resizing
        assert said is not None
        assert (said.shorter_side, said.centre_crop) == (shorter, 24)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 24, "resize": 16}, "`resize` must be at least `image_size`"),
        ({"resize": 16}, "`resize` goes with `image_size`"),
        ({"image_size": 24, "resize": "squash"}, "stretch"),
    ],
)
def test_what_makes_no_square_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataConfig.from_plain({"name": "digits", **changes})
    assert "resize" not in DataConfig(name=DataName.DIGITS).plain()
