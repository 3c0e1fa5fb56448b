"""From a configuration to splits: train and selection for training, test for the end."""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.config.data import DataConfig
from trainables.data.hashing import falls_below, first_by_hash, salt_of
from trainables.data.records import ImageSplit, SourceImages, SourcePart, TrainingData
from trainables.data.sources import read_source
from trainables.errors import ConfigError, DataError

_SELECTION_SALT: Final = salt_of("data/selection")
_LIMIT_SALT: Final = salt_of("data/train_limit")
_SMALLEST_STD: Final = 1 / 255  # one grey level: a channel of one colour must not divide by zero
_LARGEST_BYTE: Final = 255
MEASURED_IMAGES: Final = 2048
"""From how many images in files mean and std are measured: the error of the mean is then some 0.005."""
_MEASURE_SALT: Final = salt_of("data/measured")
_MEASURE_CHUNK: Final = 64


def load_training(config: DataConfig) -> TrainingData:
    """The train and selection splits; no test image is read.

    A sample is held out for selection when the hash of its id falls below `selection_fraction`, so samples
    that are added at the end move none of the others. `train_limit` shortens the train split alone.

    Raises:
        DataError: the data are missing, unreadable, badly labelled, of one class, or leave a split empty.
        ConfigError: the factory cannot be found or called, or `mean` and `std` do not fit the images.
    """
    source = read_source(config, SourcePart.TRAIN)
    classes = _class_names(source)
    ids = _ids(source)
    held_out = falls_below(ids, config.selection_fraction, salt=_SELECTION_SALT)
    selection = _split(source, ids[held_out])
    train_ids = ids[~held_out]
    if config.train_limit is not None:
        train_ids = first_by_hash(train_ids, config.train_limit, salt=_LIMIT_SALT)
    train = _split(source, train_ids)
    if len(train.ids) == 0 or len(selection.ids) == 0:
        raise DataError(
            f"selection_fraction {config.selection_fraction} of {len(ids)} training samples "
            f"leaves {len(train.ids)} to train on and {len(selection.ids)} for selection; change the "
            "fraction or add samples"
        )
    mean, std = _normalisation(config, train)
    return TrainingData(train, selection, classes, mean, std, _digest(train), source.left_out)


def load_test(config: DataConfig) -> ImageSplit:
    """The test split; read it once, at the end, for the finalists.

    A factory whose data set has no `classes` does not tell how many there are; then only negative labels are
    refused here.

    Raises:
        DataError: the data are missing, unreadable or badly labelled.
        ConfigError: the factory cannot be found or called.
    """
    source = read_source(config, SourcePart.TEST)
    return _split(source, _ids(source))


def _class_names(source: SourceImages) -> tuple[str, ...]:
    classes = source.classes
    if classes is None:
        classes = tuple(str(label) for label in range(int(source.labels.max()) + 1))
    if len(classes) < 2:
        raise DataError(
            f"the data set has {len(classes)} class ({', '.join(classes)}); a classifier needs two"
        )
    return classes


def _ids(source: SourceImages) -> NDArray[np.int64]:
    return np.arange(len(source.labels), dtype=np.int64) if source.ids is None else source.ids.numpy()


def _split(source: SourceImages, ids: NDArray[np.int64]) -> ImageSplit:
    rows = np.searchsorted(_ids(source), ids)
    labels = source.labels[torch.from_numpy(rows)]
    if isinstance(source.images, Tensor):
        return ImageSplit(source.images[torch.from_numpy(rows)], labels, torch.from_numpy(ids))
    return ImageSplit(source.images.subset(rows), labels, torch.from_numpy(ids))


def _normalisation(config: DataConfig, train: ImageSplit) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if config.mean is None or config.std is None:
        return _measured_in_files(train) if train.files is not None else measured(train.images[:])
    n_channels = train.images.shape[1]
    if len(config.mean) != n_channels or len(config.std) != n_channels:
        raise ConfigError(
            f"`mean` has {len(config.mean)} and `std` {len(config.std)} values; the images have {n_channels} "
            "channels: give one value per channel, or leave both out to have them measured"
        )
    if min(config.std) <= 0:
        raise ConfigError(f"`std` {config.std} must be above 0 in each channel")
    return config.mean, config.std


def measured(images_NCHW: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images, as of pixels in [0, 1]; std at least 1/255.

    Both come from a histogram in whole numbers, so every machine finds the same digits.
    """
    return _moments(_histograms(images_NCHW))


def _measured_in_files(train: ImageSplit) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The same of some images, which their ids choose: to decode all would take as long as an epoch."""
    chosen = first_by_hash(train.ids.numpy(), MEASURED_IMAGES, salt=_MEASURE_SALT)
    rows = torch.from_numpy(np.searchsorted(train.ids.numpy(), chosen))
    chunks = train.each(train.images.__getitem__, torch.split(rows, _MEASURE_CHUNK))
    return _moments(sum((_histograms(chunk) for chunk in chunks), torch.zeros(1, dtype=torch.int64)))


def _histograms(images_NCHW: Tensor) -> Tensor:
    """int64 Cx256: how often each level occurs in each channel."""
    levels = _LARGEST_BYTE + 1
    channels = range(images_NCHW.shape[1])
    return torch.stack([torch.bincount(images_NCHW[:, c].flatten(), minlength=levels) for c in channels])


def _moments(histograms_CL: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    means, stds = [], []
    for histogram in histograms_CL.tolist():
        count = sum(histogram)
        total = sum(value * times for value, times in enumerate(histogram))
        total_squares = sum(value**2 * times for value, times in enumerate(histogram))
        variance = (count * total_squares - total**2) / count**2
        means.append(total / count / _LARGEST_BYTE)
        stds.append(max(variance**0.5 / _LARGEST_BYTE, _SMALLEST_STD))
    return tuple(means), tuple(stds)


def _digest(split: ImageSplit) -> str:
    if split.files is not None:
        return split.files.digest(split.labels, split.ids)
    digest = hashlib.sha256()
    for tensor in (split.images[:], split.labels, split.ids):
        array = np.ascontiguousarray(tensor.numpy())
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()
