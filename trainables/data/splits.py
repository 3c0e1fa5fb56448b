"""What data looks like: whole splits, each sample under a stable id, its images in memory or in files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import torch
from torch import Tensor

from trainables.config import digest_of
from trainables.config.data import Normalisation, SplitFacts, UnlabelledConfig, UnlabelledFacts
from trainables.data.prefetch import one_ahead

if TYPE_CHECKING:  # most data sets are no image folders
    from trainables.data.folder_images import FolderImages

K = TypeVar("K")
V = TypeVar("V")

NO_LABEL: Final = -1
"""Stands in the place of the label of an unlabelled image."""
FIRST_UNLABELLED_ID: Final = 1 << 40
"""Ids of unlabelled images begin here, beyond those of any training split."""

# N = samples, B = samples of a batch, C = channels, H, W = height and width in pixels
# M = samples of the training split and unlabelled ones behind them


@dataclass(frozen=True)
class SourceImages:
    """One part of a data set as its source holds it, before any split."""

    images: Tensor | FolderImages
    """uint8, NxCxHxW."""
    labels: Tensor
    """int64, N."""
    classes: tuple[str, ...] | None
    """Names in the order of the labels; none where the source does not know them."""
    ids: Tensor | None = None
    """int64, N, strictly ascending; none where a sample's id is its row."""
    left_out: int = 0
    """Images that cannot be read, and are not among these."""


@dataclass(frozen=True)
class ImageSplit:
    """The images of one split: in memory as a tensor, or in their files, decoded when they are indexed."""

    images: Tensor | FolderImages
    """uint8, NxCxHxW; both kinds give a tensor for a slice, or for an int64 tensor of rows."""
    labels: Tensor
    """int64, N; 0 to the number of classes less one."""
    ids: Tensor
    """int64, N, strictly ascending: the sample's row in its part (train or test) of the source."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width of an image."""
        channels, height, width = (int(size) for size in self.images.shape[1:])
        return channels, height, width

    @property
    def files(self) -> FolderImages | None:
        """The images, where they lie in files; none where they are in memory."""
        return None if isinstance(self.images, Tensor) else self.images

    def batches(self, batch_size: int) -> Iterator[Tensor]:
        """The images in order, uint8 BxCxHxW each; where they lie in files, one batch is decoded ahead."""
        count = len(self.labels)
        return self.each(
            self.images.__getitem__,
            [slice(first, first + batch_size) for first in range(0, count, batch_size)],
        )

    def each(self, make: Callable[[K], V], items: Sequence[K]) -> Iterator[V]:
        """`map` for what is made of these images: ahead of its use, in a thread, where they lie in files."""
        return map(make, items) if self.files is None else one_ahead(make, items)


@dataclass(frozen=True)
class Unlabelled:
    """Images without labels, and how students learn from them."""

    split: ImageSplit
    """Every label is `NO_LABEL`; an id is `FIRST_UNLABELLED_ID` and the image's place in its source."""
    facts: UnlabelledFacts
    config: UnlabelledConfig


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
    """Hex sha256 of the train split's images, labels and ids, with their shapes; of images that lie in files,
    their paths, sizes and contents as they are on disk stand for the pixels."""
    left_out: int = 0
    """Images of the training part that cannot be read and are in neither split."""
    unlabelled: Unlabelled | None = None

    @property
    def parts(self) -> tuple[ImageSplit, ...]:
        """All that the teacher answers for: the training split, and behind it unlabelled images."""
        return (self.train,) if self.unlabelled is None else (self.train, self.unlabelled.split)

    @property
    def ids_M(self) -> Tensor:
        """int64, strictly ascending: ids of all that the teacher answers for, in the order of its rows."""
        return self.train.ids if self.unlabelled is None else torch.cat([part.ids for part in self.parts])

    @property
    def labels_M(self) -> Tensor:
        """int64, likewise; `NO_LABEL` of unlabelled images."""
        if self.unlabelled is None:
            return self.train.labels
        return torch.cat([part.labels for part in self.parts])

    def each(self, make: Callable[[K], V], items: Sequence[K]) -> Iterator[V]:
        """`ImageSplit.each` for what is made of images of any part."""
        in_files = next((part for part in self.parts if part.files is not None), self.train)
        return in_files.each(make, items)

    @property
    def normalisation(self) -> Normalisation:
        """Of the images that students are trained on."""
        return Normalisation(mean=self.mean, std=self.std)


def rows_of_parts(parts: Sequence[ImageSplit], rows_B: Tensor) -> list[Tensor]:
    """Of rows that count through all parts, those of each, in their order, counted from its own first one."""
    if len(parts) == 1:
        return [rows_B]
    n_first = len(parts[0].ids)
    return [rows_B[rows_B < n_first], rows_B[rows_B >= n_first] - n_first]


def by_part(parts: Sequence[ImageSplit], rows_B: Tensor, give: Callable[[int, Tensor], Tensor]) -> Tensor:
    """What `give(part, rows of it)` says of rows that count through all parts, in the order of the rows."""
    rows = rows_of_parts(parts, rows_B)
    given = [give(part, some) for part, some in enumerate(rows) if len(some) or len(parts) == 1]
    if len(given) <= 1:
        return given[0] if given else give(0, rows_B)
    joined, is_behind_B = torch.cat(given), rows_B >= len(parts[0].ids)
    if not is_behind_B[: len(rows[0])].any():  # the first part's come first already, as in a batch
        return joined
    result = torch.empty_like(joined)
    result[is_behind_B.int().argsort(stable=True).to(joined.device)] = joined
    return result


def split_facts(data: TrainingData) -> SplitFacts:
    """The facts of loaded data."""
    return SplitFacts(
        data_digest=data.digest,
        ids_digest=digest_of(data.train.ids.tolist()),
        n_train=len(data.train.ids),
        classes=data.classes,
        mean=data.mean,
        std=data.std,
        input_shape=data.train.image_shape,
        left_out=data.left_out,
        unlabelled=data.unlabelled and data.unlabelled.facts,
    )
