"""Images with labels for an exported student: a folder of folders by class, or the data of an experiment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from orchestrator.config.loading import load_experiment
from orchestrator.pipeline.shipped.predictions import (
    ReadImages,
    UnreadImage,
    answered,
    image_files,
    read_in_batches,
)
from trainables.config import DataConfig, DataName, Split
from trainables.config.data import SourcePart
from trainables.data import ImageSplit, load_test, load_training
from trainables.data.layouts.listing import list_images
from trainables.data.pictures import Encoded
from trainables.errors import ConfigError
from trainables.export.opening import OpenedStudent
from trainables.export.picture_reading import PictureReader, picture_reader
from trainables.export.stated import StudentDocument
from trainables.foreign_files import Unreadable, foreign_file
from trainables.local_files import expanded

TOGETHER: Final = 64
_NAMED: Final = 5
_PARTS: Final = ("train", "test", "val", "validation")
_TESTED: Final = "test_"
"""How figures of the test split begin in a card."""

# B = images, C = channels or classes, H, W = height and width

Pixels = NDArray[np.uint8]
"""HxWxC, as it lies in its file or in the data set."""


class LabelledImages(Protocol):
    """Images whose classes are known, to ask students about."""

    @property
    def name(self) -> str:
        """What they are, for people."""
        ...

    def __len__(self) -> int:
        """How many there are, those that cannot be read included."""
        ...

    def answers(self, student: OpenedStudent) -> Iterator[tuple[Tensor, Tensor, list[UnreadImage]]]:
        """float32 logits BxC, int64 labels B in the order of the student's classes, and what was left out."""
        ...

    def pictures(self, document: StudentDocument, count: int) -> Iterator[tuple[Pixels, Pixels]]:
        """The first images as they lie in their files, and beside each what a student takes, CxHxW."""
        ...


def labelled_images(data: str, document: StudentDocument, *, split: str = "selection") -> LabelledImages:
    """The images that a text names: a folder with a folder for each class, or an experiment.

    Raises:
        ConfigError: there are none, or none of the student's classes; or the test split is asked for of a
            student whose file tells no figure of it.
        DataError: the experiment's data cannot be read.
    """
    folder = expanded(data)
    if folder.is_dir():
        return FolderOfClasses(folder, document.classes)
    config = load_experiment(data).config.data.labelled
    wanted = Split(split)
    if wanted is Split.TEST and not any(figure.startswith(_TESTED) for figure in document.metrics):
        raise ConfigError(
            "the student's file tells no figure of the test split, so no run has tested it, and the test "
            "split could be used to choose a student; leave out --split test"
        )
    training = load_training(config)
    shown = load_test(config, training.classes) if wanted is Split.TEST else training.selection
    part = SourcePart.TEST if wanted is Split.TEST else SourcePart.TRAIN
    return SplitOfExperiment(f"{wanted} split of {data}", config, part, shown, training.classes, document)


class FolderOfClasses:
    """A folder with a folder of image files for each class."""

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        """Lists the files; none is read yet.

        Raises:
            ConfigError: it holds no folders, or such as are none of these classes.
        """
        inside = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
        if not inside:
            raise ConfigError(f"{folder} holds no folders; give one with a folder of images for each class")
        if parts := [name for name in inside if name in _PARTS and name not in classes]:
            raise ConfigError(
                f"{folder} holds parts of a data set; name one of them, as {folder / parts[-1]}"
            )
        _require_known(inside, classes, f"{folder} holds folders")
        self.name = str(folder)
        self._label_of = {
            file: classes.index(name) for name in inside for file in image_files([folder / name])
        }

    def __len__(self) -> int:
        return len(self._label_of)

    def answers(self, student: OpenedStudent) -> Iterator[tuple[Tensor, Tensor, list[UnreadImage]]]:
        """As `LabelledImages` says."""
        for _, read in read_in_batches(student, list(self._label_of)):
            if read.files:
                yield answered(student, read), self._labels(read), read.unread
            elif read.unread:
                nothing = torch.zeros(0, len(student.classes))
                yield nothing, torch.zeros(0, dtype=torch.int64), read.unread

    def pictures(self, document: StudentDocument, count: int) -> Iterator[tuple[Pixels, Pixels]]:
        """As `LabelledImages` says; evenly over the classes, whose files are listed one after the other."""
        files = list(self._label_of)
        step = max(1, len(files) // count)
        yield from _both(files[::step][:count], picture_reader(document))

    def _labels(self, read: ReadImages) -> Tensor:
        return torch.tensor([self._label_of[file] for file in read.files])


class SplitOfExperiment:
    """A split of an experiment's data, as its data module prepared it."""

    def __init__(
        self,
        name: str,
        config: DataConfig,
        part: SourcePart,
        split: ImageSplit,
        classes: Sequence[str],
        document: StudentDocument,
    ) -> None:
        """`classes` are the data's, in the order of its labels.

        Raises:
            ConfigError: the student of this document does not know them, or takes other images.
        """
        _require_known(classes, document.classes, f"{name} has classes")
        if split.image_shape != document.input_shape:
            raise ConfigError(
                f"{name} has images of shape {split.image_shape}, the student takes "
                f"{document.input_shape}; name the experiment that it comes from, or a folder of images"
            )
        self.name = name
        self._config = config
        self._part = part
        self._split = split
        self._places_C = torch.tensor([document.classes.index(each) for each in classes])

    def __len__(self) -> int:
        return len(self._split.labels)

    def answers(self, student: OpenedStudent) -> Iterator[tuple[Tensor, Tensor, list[UnreadImage]]]:
        """As `LabelledImages` says."""
        if student.takes_pictures:
            raise ConfigError(
                f"{student.file.name} prepares images itself, and those of an experiment are prepared "
                "already; give --data a folder of image files"
            )
        labels = torch.split(self._places_C[self._split.labels], TOGETHER)
        for images_BCHW, labels_B in zip(self._split.batches(TOGETHER), labels, strict=True):
            yield student.logits(images_BCHW), labels_B, []

    def pictures(self, document: StudentDocument, count: int) -> Iterator[tuple[Pixels, Pixels]]:
        """As `LabelledImages` says."""
        if self._config.name is DataName.IMAGE_FOLDER:
            listing = list_images(self._config, self._part).images
            places = [listing.image(row) for row in self._split.ids[:count].tolist()]
            yield from _both(places, picture_reader(document))
            return
        for image_CHW in self._split.images[:count].numpy():
            yield np.ascontiguousarray(image_CHW.transpose(1, 2, 0)), image_CHW


def _both(places: Sequence[Encoded], reader: PictureReader) -> Iterator[tuple[Pixels, Pixels]]:
    """Those that can be read."""
    for place in places:
        both: tuple[Pixels, Pixels] | None = None
        with suppress(Unreadable), foreign_file(Unreadable):
            both = reader.whole(place), reader.prepared(place)[0]
        if both is not None:
            yield both


def _require_known(found: Sequence[str], classes: Sequence[str], where: str) -> None:
    unknown = [name for name in found if name not in classes]
    if unknown:
        more, others = (" ..." if len(names) > _NAMED else "" for names in (unknown, classes))
        raise ConfigError(
            f"{where} that the student does not know: {', '.join(map(repr, unknown[:_NAMED]))}{more}; it "
            f"knows {', '.join(map(repr, classes[:_NAMED]))}{others}"
        )
