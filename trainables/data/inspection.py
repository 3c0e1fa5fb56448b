"""Both parts of a data set looked at as a whole, before anything is trained on one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from trainables.config.data import DataConfig, DataName, SourcePart
from trainables.data.folder_index import Told
from trainables.data.image_folder import index_folder, layout_in_words
from trainables.data.leakage import leaks
from trainables.data.loading import as_split, load_training, read_test
from trainables.data.splits import ImageSplit, SourceImages, TrainingData
from trainables.data.user import require_same_images, require_same_samples
from trainables.errors import DataError, StillhouseError

T = TypeVar("T")
_NAMED = 5


@dataclass
class DataInspection:
    """What was found; the data themselves where the training part could be loaded."""

    data: TrainingData | None = None
    problems: list[StillhouseError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    leaks: tuple[str, ...] = ()
    """Of which images two splits hold the same, in sentences."""


def inspect_data(config: DataConfig, told: Told) -> DataInspection:
    """Open both parts, look at all labels, and find the images that cannot be read.

    Of images that stay in their files, those of the test part are decoded once, since they are read only when
    all is trained; those of the training part as far as loading does. `told` hears of the progress of that.
    """
    found = DataInspection()
    if config.name is DataName.IMAGE_FOLDER and (words := _attempt(found, lambda: layout_in_words(config))):
        found.notes.append(f"data: {words}")
    found.data = _attempt(found, lambda: load_training(config))
    classes = None if found.data is None else found.data.classes

    def test_part() -> SourceImages:
        index_folder(config, told, SourcePart.TEST, decode=True)
        return read_test(config, classes)

    test = _attempt(found, test_part)
    if found.data is not None and test is not None:
        _compare(found, found.data, test)
        _compare_contents(found, config, as_split(test))
    return found


def _compare_contents(found: DataInspection, config: DataConfig, test: ImageSplit) -> None:
    data = found.data
    if data is None:
        return
    if config.factory is not None:
        parts = ((SourcePart.TRAIN, data.train), (SourcePart.TEST, test))
        for part, split in parts:
            _attempt(found, lambda part=part, split=split: require_same_samples(config, part, split))  # type: ignore[misc]
    if (own := data.unlabelled) is not None and own.config.factory is not None:
        _attempt(found, lambda: require_same_images(config, own.config, own.split))
    found.leaks = _attempt(found, lambda: leaks(config, data, test)) or ()


def _attempt(found: DataInspection, read: Callable[[], T]) -> T | None:
    try:
        return read()
    except StillhouseError as error:
        if str(error) not in map(str, found.problems):
            found.problems.append(error)
        return None


def _compare(found: DataInspection, data: TrainingData, test: SourceImages) -> None:
    here, there = (tuple(map(int, images.shape[1:])) for images in (data.train.images, test.images))
    if here != there:
        found.problems.append(
            DataError(
                f"test images have the shape {there}, training images {here} (channels, height, width); "
                "bring them to one size, or set `image_size`"
            )
        )
    found.notes.append(
        f"data: {len(data.train.ids):,} training, {len(data.selection.ids):,} selection and "
        f"{len(test.labels):,} test samples of {len(data.classes):,} classes, images "
        f"{'x'.join(map(str, here))}"
    )
    if data.unlabelled is not None:
        found.notes.append(f"data: {data.unlabelled.facts.in_words(data.unlabelled.config)}")
    if len(data.selection.ids) < len(data.classes):
        found.notes.append(
            f"data: the selection split has {len(data.selection.ids):,} samples for {len(data.classes):,} "
            "classes: too few to rank students by; raise data.selection_fraction"
        )
    training = torch.cat([data.train.labels, data.selection.labels])
    for part, labels, left_out in (
        ("training", training, data.left_out),
        ("test", test.labels, test.left_out),
    ):
        counts = torch.bincount(labels, minlength=len(data.classes))
        empty = [data.classes[label] for label in (counts == 0).nonzero().flatten().tolist()]
        if empty:
            more = ", ..." if len(empty) > _NAMED else ""
            names = ", ".join(empty[:_NAMED])
            found.notes.append(
                f"data: {len(empty):,} of {len(data.classes):,} classes have no {part} sample: {names}{more}"
            )
        if left_out:
            found.notes.append(
                f"data: {left_out:,} unreadable {part} images are left out (data.skip_unreadable)"
            )
