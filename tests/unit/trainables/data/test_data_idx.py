"""Fashion-MNIST's IDX files: where they are looked for, and what damage says."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from trainables.config.data import DataConfig, DataName
from trainables.data import load_test, load_training
from trainables.data.named.idx import read_idx
from trainables.errors import DataError


def config_of(root: Path) -> DataConfig:
    return DataConfig(name=DataName.FASHION_MNIST, root=str(root))


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_part(folder: Path, stem: str, n_images: int, *, gzipped: bool) -> NDArray[np.uint8]:
    images = np.random.default_rng(0).integers(0, 256, (n_images, 28, 28), dtype=np.uint8)
    labels = (np.arange(n_images) % 10).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        content = idx_bytes(array)
        suffix = ".gz" if gzipped else ""
        (folder / f"{stem}-{name}-ubyte{suffix}").write_bytes(gzip.compress(content) if gzipped else content)
    return images


@pytest.mark.parametrize("gzipped", [True, False])
@pytest.mark.parametrize("folder", [".", "FashionMNIST/raw"])
def test_training_needs_the_two_training_files_alone(tmp_path: Path, folder: str, gzipped: bool) -> None:
    images = write_part(tmp_path / folder, "train", 40, gzipped=gzipped)
    data = load_training(config_of(tmp_path))
    assert torch.equal(data.train.images[:][:, 0], torch.from_numpy(images)[data.train.ids])
    assert torch.equal(data.selection.labels, data.selection.ids % 10)
    assert data.classes[0] == "T-shirt/top"


def test_the_test_part_has_its_own_files(tmp_path: Path) -> None:
    write_part(tmp_path, "train", 40, gzipped=True)
    images = write_part(tmp_path, "t10k", 12, gzipped=True)
    test = load_test(config_of(tmp_path))
    assert torch.equal(test.images[:][:, 0], torch.from_numpy(images))
    assert test.ids.tolist() == list(range(12))


def test_missing_files_are_named_with_ways_to_get_them(tmp_path: Path) -> None:
    write_part(tmp_path, "train", 40, gzipped=True)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError) as caught:
        load_training(config_of(tmp_path))
    message = str(caught.value)
    assert f"no train-labels-idx1-ubyte (or the same with .gz) in {tmp_path}" in message
    assert "images-idx3" not in message
    assert "download: true" in message
    assert "apt-get install dataset-fashion-mnist" in message


def test_a_missing_root_is_named_with_ways_to_get_the_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere of data set fashion_mnist does not exist.*apt-get install"):
        load_training(config_of(tmp_path / "nowhere"))


def test_a_root_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is not a folder"):
        load_training(config_of(tmp_path / "file"))


def test_images_and_labels_must_be_as_many(tmp_path: Path) -> None:
    write_part(tmp_path, "train", 40, gzipped=False)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(39, np.uint8)))
    with pytest.raises(DataError, match=r"holds 40 images and .* holds 39 labels"):
        load_training(config_of(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a", b"", "begins with nothing"),
        ("a", b"\x00\x00\x08\x03" + bytes(12), "begins with 00 00 08 03"),
        ("a", b"\x00\x00\x0d\x01\x00\x00\x00\x00", "begins with 00 00 0d 01"),
        ("a", idx_bytes(np.zeros(9, np.uint8))[:-1], "says 9 = 9 bytes and holds 8"),
        ("a", idx_bytes(np.zeros(9, np.uint8)) + b"x", "says 9 = 9 bytes and holds 10"),
        ("a.gz", idx_bytes(np.zeros(9, np.uint8)), "cannot read .*a.gz: Not a gzipped file"),
        ("a.gz", gzip.compress(idx_bytes(np.zeros(9, np.uint8)), mtime=0)[:-9], "cannot read .*a.gz"),
        (
            "a.gz",
            gzip.compress(idx_bytes(np.zeros(9, np.uint8)), mtime=0)[:10] + b"\xff" * 20,
            "cannot read .*a.gz",
        ),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(tmp_path / name, dimensions=1)
