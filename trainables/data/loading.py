"""From a configuration to splits: train and selection for training, test for the end."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import islice
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.config.data import DataConfig, SourcePart
from trainables.data.long_tail import long_tailed
from trainables.data.normalisation import Moments, measured, measured_in_files
from trainables.data.sources import read_source
from trainables.data.splits import ImageSplit, SourceImages, TrainingData
from trainables.data.unlabelled.loading import load_unlabelled
from trainables.errors import ConfigError, DataError
from trainables.seeds import falls_below, first_by_hash, salt_of

_SELECTION_SALT: Final = salt_of("data/selection")
_LIMIT_SALT: Final = salt_of("data/train_limit")
_NAMED: Final = 5


def load_training(config: DataConfig) -> TrainingData:
    """The train and selection splits, and unlabelled images where the configuration names some.

    No test image is read, but where there are unlabelled ones: those that are in the test part too are left
    out, by content, and nothing else of it is looked at.

    A sample is held out for selection when the hash of its id falls below `selection_fraction`, so samples
    that are added at the end move none of the others. `train_limit` and `imbalance` shorten the train split
    alone.

    Raises:
        DataError: the data are missing, unreadable, badly labelled, of one class, or leave a split empty.
        ConfigError: the factory cannot be found or called, or `mean` and `std` do not fit the images.
    """
    source = read_source(config, SourcePart.TRAIN)
    classes = _class_names(source)
    ids = _ids(source)
    held_out = falls_below(ids, config.selection_fraction, salt=_SELECTION_SALT)
    selection = _split(source, ids[held_out])
    train_ids = _shortened(config, source, ids[~held_out], n_classes=len(classes))
    train = _split(source, train_ids)
    if len(train.ids) == 0 or len(selection.ids) == 0:
        raise DataError(
            f"selection_fraction {config.selection_fraction} of {len(ids)} training samples "
            f"leaves {len(train.ids)} to train on and {len(selection.ids)} for selection; change the "
            "fraction or add samples"
        )
    digest = _digest(train)
    mean, std = _normalisation(config, train, digest)
    unlabelled = None
    if config.unlabelled is not None:
        rest = None
        if config.unlabelled.rest:
            rest = _split(source, np.setdiff1d(ids[~held_out], train_ids))
        test = read_test(config)
        unlabelled = load_unlabelled(
            config, config.unlabelled, rest=rest, selection=selection.images, test=test.images
        )
    return TrainingData(train, selection, classes, mean, std, digest, source.left_out, unlabelled)


def load_test(config: DataConfig, classes: Sequence[str] | None = None) -> ImageSplit:
    """The test split; read it once, at the end, for the finalists.

    Raises:
        DataError: as for `read_test`.
        ConfigError: the factory cannot be found or called.
    """
    return as_split(read_test(config, classes))


def as_split(source: SourceImages) -> ImageSplit:
    """A whole part as one split; no image is copied."""
    return ImageSplit(source.images, source.labels, torch.from_numpy(_ids(source)))


def read_test(config: DataConfig, classes: Sequence[str] | None = None) -> SourceImages:
    """The test part as its source holds it; `classes` are the training part's.

    Without them, a factory whose data set has no `classes` is only asked that no label is negative.

    Raises:
        DataError: the data are missing, unreadable or badly labelled, or of other classes than these.
        ConfigError: the factory cannot be found or called.
    """
    source = read_source(config, SourcePart.TEST)
    if classes is not None:
        _refuse_other_classes(source, classes)
    return source


def _refuse_other_classes(test: SourceImages, classes: Sequence[str]) -> None:
    if test.classes is not None and tuple(test.classes) != tuple(classes):
        here, there = list(test.classes[:_NAMED]), list(classes[:_NAMED])
        raise DataError(
            f"the test part names {len(test.classes)} classes ({here} ...), the training part {len(classes)} "
            f"({there} ...); give both the same, in one order"
        )
    high = int(test.labels.max())
    if high >= len(classes):
        row = int(test.labels.argmax())
        raise DataError(
            f"test sample {row} has the label {high}; the training part has {len(classes)} classes, so "
            f"labels are 0 to {len(classes) - 1}: correct the label, or add training samples of that class"
        )


def _shortened(
    config: DataConfig, source: SourceImages, ids: NDArray[np.int64], *, n_classes: int
) -> NDArray[np.int64]:
    """Of the ids that are not held out, those that `train_limit` and `imbalance` leave."""
    if config.train_limit is not None:
        ids = first_by_hash(ids, config.train_limit, salt=_LIMIT_SALT)
    if config.imbalance > 1:
        labels = source.labels.numpy()[np.searchsorted(_ids(source), ids)]
        ids = long_tailed(ids, labels, n_classes=n_classes, imbalance=config.imbalance)
    return ids


def _class_names(source: SourceImages) -> tuple[str, ...]:
    classes = source.classes
    if classes is None:
        _refuse_gaps(source.labels)
        classes = tuple(str(label) for label in range(int(source.labels.max()) + 1))
    if len(classes) < 2:
        raise DataError(
            f"the data set has {len(classes)} class ({', '.join(classes)}); a classifier needs two"
        )
    return classes


def _refuse_gaps(labels_N: Tensor) -> None:
    """Unnamed classes are only known by their samples: one without any is a label that is wrong."""
    present, largest = set(torch.unique(labels_N).tolist()), int(labels_N.max())
    empty = list(islice((label for label in range(largest) if label not in present), _NAMED + 1))
    if empty:
        more = ", ..." if len(empty) > _NAMED else ""
        raise DataError(
            f"no training sample has the label {', '.join(map(str, empty[:_NAMED]))}{more}, and the largest "
            f"is {largest} (sample {int(labels_N.argmax())}): number the classes from 0 without gaps, or "
            "give the data set an attribute `classes` that names them all"
        )


def _ids(source: SourceImages) -> NDArray[np.int64]:
    return np.arange(len(source.labels), dtype=np.int64) if source.ids is None else source.ids.numpy()


def _split(source: SourceImages, ids: NDArray[np.int64]) -> ImageSplit:
    rows = np.searchsorted(_ids(source), ids)
    labels = source.labels[torch.from_numpy(rows)]
    if isinstance(source.images, Tensor):
        return ImageSplit(source.images[torch.from_numpy(rows)], labels, torch.from_numpy(ids))
    return ImageSplit(source.images.subset(rows), labels, torch.from_numpy(ids))


def _normalisation(config: DataConfig, train: ImageSplit, digest: str) -> Moments:
    if config.mean is None or config.std is None:
        return measured(train.images[:]) if train.files is None else measured_in_files(train, digest)
    n_channels = train.images.shape[1]
    if len(config.mean) != n_channels or len(config.std) != n_channels:
        raise ConfigError(
            f"`mean` has {len(config.mean)} and `std` {len(config.std)} values; the images have {n_channels} "
            "channels: give one value per channel, or leave both out to have them measured"
        )
    if min(config.std) <= 0:
        raise ConfigError(f"`std` {config.std} must be above 0 in each channel")
    return config.mean, config.std


def _digest(split: ImageSplit) -> str:
    if split.files is not None:
        return split.files.digest(split.labels, split.ids)
    digest = hashlib.sha256()
    for tensor in (split.images[:], split.labels, split.ids):
        array = np.ascontiguousarray(tensor.numpy())
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()
