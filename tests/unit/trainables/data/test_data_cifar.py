"""CIFAR in torchvision's layout: its order, its checksums."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.datasets import CIFAR100

from trainables.config.data import DataConfig, DataName
from trainables.data import load_test, load_training
from trainables.data.named.cifar import from_torchvision
from trainables.errors import DataError


def config_of(root: Path) -> DataConfig:
    return DataConfig(name=DataName.CIFAR100, root=str(root))


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def write_part(path: Path, n_images: int) -> NDArray[np.uint8]:
    """Rows of 3072 bytes, red plane first, as the published pickles hold them."""
    rows = np.random.default_rng(n_images).integers(0, 256, (n_images, 3072), dtype=np.uint8)
    labels = [index % 100 for index in range(n_images)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({"data": rows, "fine_labels": labels, "coarse_labels": [0] * n_images}))
    return rows.reshape(-1, 3, 32, 32)


@pytest.fixture
def tiny_cifar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, NDArray[np.uint8], NDArray[np.uint8]]:
    """A small set on disk; torchvision's list of checksums is set to its files, and still enforced."""
    folder = tmp_path / CIFAR100.base_folder
    train = write_part(folder / "train", 60)
    test = write_part(folder / "test", 20)
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"class {i}" for i in range(100)]}))
    monkeypatch.setattr(CIFAR100, "train_list", [["train", md5(folder / "train")]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", md5(folder / "test")]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": md5(folder / "meta")})
    return tmp_path, train, test


def test_images_keep_their_order_and_planes(
    tiny_cifar: tuple[Path, NDArray[np.uint8], NDArray[np.uint8]],
) -> None:
    root, train, test = tiny_cifar
    data = load_training(config_of(root))
    assert torch.equal(data.train.images[:], torch.from_numpy(train)[data.train.ids])
    assert torch.equal(data.train.labels, data.train.ids)
    assert torch.equal(load_test(config_of(root)).images[:], torch.from_numpy(test))
    assert data.classes[99] == "class 99"
    assert len(data.mean) == 3


def test_a_dataset_object_of_torchvision_is_converted(
    tiny_cifar: tuple[Path, NDArray[np.uint8], NDArray[np.uint8]],
) -> None:
    root, _, test = tiny_cifar
    dataset = CIFAR100(root, train=False)
    source = from_torchvision(dataset)
    assert np.array_equal(np.asarray(dataset[3][0]).transpose(2, 0, 1), source.images[:][3].numpy())
    assert np.array_equal(source.images[:].numpy(), test)


def test_a_file_that_is_not_the_published_one_is_never_unpickled(
    tiny_cifar: tuple[Path, NDArray[np.uint8], NDArray[np.uint8]],
) -> None:
    root, _, _ = tiny_cifar
    write_part(root / CIFAR100.base_folder / "train", 61)
    with pytest.raises(DataError, match=r"cifar-100-python lacks files, or they fail their checksums; set"):
        load_training(config_of(root))


def test_missing_files_are_named_with_ways_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"cifar-100-python does not exist; set `download: true`, or unpack cifar-100-python\.tar\.gz",
    ):
        load_training(config_of(tmp_path))


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere of data set cifar100 does not exist.*download: true"):
        load_training(config_of(tmp_path / "nowhere"))
