"""The data sets that Stillhouse reads by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from trainables.config.data import DataConfig, DataName
from trainables.data.cifar import read_cifar10, read_cifar100
from trainables.data.digits import read_digits
from trainables.data.idx import read_fashion_mnist
from trainables.data.image_folder import read_image_folder
from trainables.data.records import SourceImages, SourcePart
from trainables.data.resizing import resized
from trainables.data.user import read_factory
from trainables.errors import DataError

SourceReader = Callable[[DataConfig, SourcePart], SourceImages]

SOURCES: Final[Mapping[DataName, SourceReader]] = MappingProxyType(
    {
        DataName.DIGITS: read_digits,
        DataName.FASHION_MNIST: read_fashion_mnist,
        DataName.CIFAR10: read_cifar10,
        DataName.CIFAR100: read_cifar100,
        DataName.IMAGE_FOLDER: read_image_folder,
    }
)


def read_source(config: DataConfig, part: SourcePart) -> SourceImages:
    """One part of the configured data set, resized when `image_size` says so, its labels checked.

    Raises:
        DataError: the data are missing, unreadable, or labelled other than 0 to the number of classes less
            one.
        ConfigError: the data set's factory cannot be found or called.
    """
    reader = read_factory if config.name is None else SOURCES[config.name]
    source = reader(config, part)
    _refuse_bad_labels(source, part)
    if config.image_size is None:
        return source
    return SourceImages(resized(source.images, config.image_size), source.labels, source.classes)


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
