"""The data sets that Stillhouse reads by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from torch import Tensor

from trainables.config.data import DataConfig, DataName, SourcePart
from trainables.data.resizing import resized
from trainables.data.splits import SourceImages
from trainables.data.user import read_factory
from trainables.errors import DataError

SourceReader = Callable[[DataConfig, SourcePart], SourceImages]

# Named, not imported: torchvision takes as long to import as torch, and most runs read one data set only.
SOURCES: Final[Mapping[DataName, str]] = MappingProxyType(
    {
        DataName.DIGITS: "named.digits:read_digits",
        DataName.FASHION_MNIST: "named.idx:read_fashion_mnist",
        DataName.CIFAR10: "named.cifar:read_cifar10",
        DataName.CIFAR100: "named.cifar:read_cifar100",
        DataName.IMAGE_FOLDER: "image_folder:read_image_folder",
    }
)


def reader_of(name: DataName) -> SourceReader:
    """The function that reads a data set; its module, and what that needs, is imported now."""
    module, _, function = SOURCES[name].partition(":")
    reader: SourceReader = getattr(importlib.import_module(f"trainables.data.{module}"), function)
    return reader


def read_source(config: DataConfig, part: SourcePart) -> SourceImages:
    """One part of the configured data set, resized when `image_size` says so, its labels checked.

    Raises:
        DataError: the data are missing, unreadable, or labelled other than 0 to the number of classes less
            one.
        ConfigError: the data set's factory cannot be found or called.
    """
    reader = read_factory if config.name is None else reader_of(config.name)
    source = reader(config, part)
    _refuse_bad_labels(source, part)
    is_folder = (
        config.name is DataName.IMAGE_FOLDER
    )  # its images are brought to that size as they are decoded
    if config.image_size is None or is_folder or not isinstance(source.images, Tensor):
        return source
    return replace(source, images=resized(source.images, config.image_size, config.resize))


def _refuse_bad_labels(source: SourceImages, part: SourcePart) -> None:
    if len(source.labels) == 0:
        raise DataError(f"the {part.value} part of the data set holds no sample")
    low, high = int(source.labels.min()), int(source.labels.max())
    n_classes = high + 1 if source.classes is None else len(source.classes)
    if low < 0 or high >= n_classes:
        wrong = int(((source.labels < 0) | (source.labels >= n_classes)).nonzero()[0])
        raise DataError(
            f"{part.value} sample {wrong} has the label {int(source.labels[wrong])}; with {n_classes} "
            f"classes, labels are 0 to {n_classes - 1}"
        )
