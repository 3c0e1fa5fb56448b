"""CIFAR-10 and CIFAR-100 through torchvision."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torchvision.datasets import CIFAR10, CIFAR100

from trainables.config.data import DataConfig, SourcePart
from trainables.data.roots import downloaded, root_of
from trainables.data.splits import SourceImages
from trainables.errors import DataError


def read_cifar10(config: DataConfig, part: SourcePart) -> SourceImages:
    """RGB 32x32 images in 10 classes; see `_read`."""
    return _read(CIFAR10, config, part)


def read_cifar100(config: DataConfig, part: SourcePart) -> SourceImages:
    """RGB 32x32 images in 100 fine classes; see `_read`."""
    return _read(CIFAR100, config, part)


def from_torchvision(dataset: Any) -> SourceImages:
    """The images and labels of a torchvision CIFAR data set, in its order."""
    return SourceImages(
        images=torch.from_numpy(np.ascontiguousarray(dataset.data.transpose(0, 3, 1, 2))),
        labels=torch.tensor(dataset.targets, dtype=torch.int64),
        classes=tuple(dataset.classes),
    )


def _read(dataset_class: Any, config: DataConfig, part: SourcePart) -> SourceImages:
    """One part of the set in torchvision's layout below `root`, fetched there when `download` is set.

    torchvision compares the checksums of all files, test files too, with those of the published archive
    before it unpickles the ones of this part; so no other pickle than the published one is ever loaded.

    Raises:
        DataError: the files are missing or not the published ones, or cannot be fetched.
    """
    by_hand = f"unpack {dataset_class.filename} ({dataset_class.url}) into the folder `root`"
    root = root_of(config, remedy=f"set `download: true`, or {by_hand}")
    train = part is SourcePart.TRAIN
    try:
        return from_torchvision(dataset_class(root, train=train))
    except (RuntimeError, OSError) as error:
        folder = root / dataset_class.base_folder
        if not config.download:
            state = "lacks files, or they fail their checksums" if folder.is_dir() else "does not exist"
            raise DataError(f"{folder} {state}; set `download: true`, or {by_hand}") from error
    return downloaded(
        root, lambda: from_torchvision(dataset_class(root, train=train, download=True)), by_hand=by_hand
    )
