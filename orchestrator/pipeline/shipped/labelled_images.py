"""Images with labels for an exported student: a folder of folders by class, or the data of an experiment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from orchestrator.config.loading import load_experiment
from orchestrator.pipeline.shipped.predictions import UnreadImage, answered, image_files, read_in_batches
from trainables.config import Split
from trainables.data import ImageSplit, load_test, load_training
from trainables.errors import ConfigError
from trainables.export.opening import OpenedStudent
from trainables.local_files import expanded

_TOGETHER: Final = 64
_NAMED: Final = 5
_PARTS: Final = ("train", "test", "val", "validation")
_TESTED: Final = "test_"
"""How figures of the test split begin in a card."""

# B = images, C = classes


@dataclass(frozen=True)
class LabelledImages:
    """Images that a student is asked about, whose classes are known."""

    name: str
    count: int
    answers: Callable[[OpenedStudent], Iterator[tuple[Tensor, Tensor]]]
    """Gives float32 logits BxC and int64 labels B, batch by batch, in the order of the student's classes."""
    unread: list[UnreadImage] = field(default_factory=list)
    """Grows while answers are read."""
    pictures: list[Path] = field(default_factory=list)
    """The files of a folder."""
    prepared: Callable[[], Iterator[tuple[Tensor, Tensor]]] | None = None
    """Gives uint8 BxCxHxW and labels B; none of a folder, whose images a student prepares in its own way."""


def labelled_images(data: str, student: OpenedStudent, *, split: str = "selection") -> LabelledImages:
    """The images that a text names: a folder with a folder for each class, or an experiment.

    Raises:
        ConfigError: there are none, or none of the student's classes; or the test split is asked for of a
            student whose file tells no figure of it.
        DataError: the experiment's data cannot be read.
    """
    folder = expanded(data)
    if folder.is_dir():
        return _of_folder(folder, student.classes)
    return _of_experiment(data, student, Split(split))


def _of_folder(folder: Path, classes: tuple[str, ...]) -> LabelledImages:
    below = sorted(
        place.name for place in folder.iterdir() if place.is_dir() and not place.name.startswith(".")
    )
    if not below:
        raise ConfigError(f"{folder} holds no folders; give one with a folder of images for each class")
    parts = [name for name in below if name in _PARTS and name not in classes]
    if parts:
        raise ConfigError(f"{folder} holds parts of a data set; name one of them, as {folder / parts[-1]}")
    _require_known(below, classes, f"{folder} holds folders")
    files, labels = [], []
    for name in below:
        inside = image_files([folder / name])
        files += inside
        labels += [classes.index(name)] * len(inside)
    unread: list[UnreadImage] = []
    label_of = dict(zip(files, labels, strict=True))

    def answers(student: OpenedStudent) -> Iterator[tuple[Tensor, Tensor]]:
        unread.clear()
        for _, read in read_in_batches(student, files):
            unread.extend(read.unread)
            if read.files:
                yield answered(student, read), torch.tensor([label_of[file] for file in read.files])

    return LabelledImages(str(folder), len(files), answers, unread, pictures=files)


def _of_experiment(name: str, student: OpenedStudent, split: Split) -> LabelledImages:
    config = load_experiment(name).config.data.labelled
    if student.takes_pictures:
        raise ConfigError(
            f"{student.file.name} prepares images itself, and those of an experiment are prepared already; "
            "give --data a folder of image files"
        )
    if split is Split.TEST and not any(figure.startswith(_TESTED) for figure in student.document.metrics):
        raise ConfigError(
            f"{student.file.name} tells no figure of the test split, so no run has tested this student, and "
            "the test split could be used to choose one; leave out --split test"
        )
    training = load_training(config)
    shown = load_test(config, training.classes) if split is Split.TEST else training.selection
    _require_known(list(training.classes), student.classes, f"experiment {name} has classes")
    if shown.image_shape != student.document.input_shape:
        raise ConfigError(
            f"experiment {name} has images of shape {shown.image_shape}, the student takes "
            f"{student.document.input_shape}; name the experiment that it comes from, or a folder"
        )
    places_C = torch.tensor([student.classes.index(each) for each in training.classes])

    def prepared() -> Iterator[tuple[Tensor, Tensor]]:
        return _batches(shown, places_C)

    def answers(asked: OpenedStudent) -> Iterator[tuple[Tensor, Tensor]]:
        return ((asked.logits(images_BCHW), labels_B) for images_BCHW, labels_B in prepared())

    return LabelledImages(f"{split} split of {name}", len(shown.labels), answers, prepared=prepared)


def _batches(shown: ImageSplit, places_C: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    labels = places_C[shown.labels].split(_TOGETHER)
    return zip(shown.batches(_TOGETHER), labels, strict=True)


def _require_known(found: list[str], classes: tuple[str, ...], where: str) -> None:
    unknown = [name for name in found if name not in classes]
    if unknown:
        more = " ..." if len(classes) > _NAMED else ""
        raise ConfigError(
            f"{where} that the student does not know: {', '.join(map(repr, unknown[:_NAMED]))}"
            f"{' ...' if len(unknown) > _NAMED else ''}; it knows "
            f"{', '.join(map(repr, classes[:_NAMED]))}{more}"
        )
