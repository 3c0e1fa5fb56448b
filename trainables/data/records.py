"""What data looks like in memory: whole splits as tensors, each sample under a stable id."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor

# N = samples, C = channels, H, W = height and width in pixels


class SourcePart(StrEnum):
    """The two parts that a data set comes in; the selection split is cut from its training part."""

    TRAIN = "train"
    TEST = "test"


@dataclass(frozen=True)
class SourceImages:
    """One part of a data set as its source holds it, before any split; a sample's id is its row."""

    images: Tensor
    """uint8, NxCxHxW."""
    labels: Tensor
    """int64, N."""
    classes: tuple[str, ...] | None
    """Names in the order of the labels; none where the source does not know them."""


@dataclass(frozen=True)
class ImageSplit:
    """The images of one split, wholly in memory."""

    images: Tensor
    """uint8, NxCxHxW."""
    labels: Tensor
    """int64, N; 0 to the number of classes less one."""
    ids: Tensor
    """int64, N, strictly ascending: the sample's row in its part (train or test) of the source."""


@dataclass(frozen=True)
class TrainingData:
    """All that training may see of a data set: the train and selection splits."""

    train: ImageSplit
    selection: ImageSplit
    classes: tuple[str, ...]
    """Names in the order of the labels."""
    mean: tuple[float, ...]
    """Per channel, of train pixels in [0, 1]."""
    std: tuple[float, ...]
    """Per channel, of train pixels in [0, 1]; above 0."""
    digest: str
    """Hex sha256 of the train split's images, labels and ids, with their shapes."""
