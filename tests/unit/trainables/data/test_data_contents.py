"""Which images are the same: hashes of pixels in memory, and of bytes in files."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.trainables.data.image_folders import config_of, picture, write_folder
from trainables.data import load_test, load_training
from trainables.data.contents import content_hashes


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return write_folder(tmp_path / "pictures")


def test_images_of_the_same_pixels_have_one_hash_and_others_have_others() -> None:
    images = torch.arange(5 * 3 * 4 * 4, dtype=torch.int64).remainder(251).to(torch.uint8).reshape(5, 3, 4, 4)
    images[3] = images[0]
    hashes = content_hashes(images)
    assert hashes.shape == (5,)
    assert hashes[3] == hashes[0]
    assert len(set(hashes.tolist())) == 4


def test_a_hash_tells_shapes_apart_and_does_not_depend_on_the_layout_in_memory() -> None:
    images = torch.zeros(2, 1, 4, 8, dtype=torch.uint8)
    assert content_hashes(images)[0] != content_hashes(images.reshape(2, 1, 8, 4))[0]
    drawn = torch.arange(48, dtype=torch.uint8).reshape(1, 3, 4, 4)
    turned = drawn.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert np.array_equal(content_hashes(turned), content_hashes(drawn))


def test_files_of_the_same_bytes_have_one_hash(root: Path) -> None:
    shutil.copy(root / "train/rose/1.tif", root / "train/rose/9copy.tif")
    data = load_training(config_of(root, memory_gb=0))
    hashes = [*content_hashes(data.train.images).tolist(), *content_hashes(data.selection.images).tolist()]
    assert len(set(hashes)) == len(hashes) - 1


def test_decoded_images_in_files_have_the_hashes_of_images_in_memory(root: Path) -> None:
    in_files = load_training(config_of(root, memory_gb=0)).train.images
    in_memory = load_training(config_of(root, memory_gb=4)).train.images
    assert np.array_equal(content_hashes(in_files, decoded=True), content_hashes(in_memory))


def test_large_jpegs_in_files_have_the_hashes_of_images_in_memory(root: Path) -> None:
    large = picture(900, 12, 9).resize((120, 90))  # at least four times as large as wanted
    large.save(root / "train/rose/large.jpg")
    large.save(root / "test/rose/large.jpg")
    in_files = load_test(config_of(root, memory_gb=0)).images
    in_memory = load_test(config_of(root, memory_gb=4)).images
    assert np.array_equal(content_hashes(in_files, decoded=True), content_hashes(in_memory))
