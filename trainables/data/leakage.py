"""Whether splits hold the same images: then what is measured on one was learned on the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from trainables.config.data import DataConfig, SourcePart
from trainables.data.contents import among, content_hashes
from trainables.data.image_folder import file_hashes
from trainables.data.splits import ImageSplit, TrainingData

# N = images

_Hashes = Callable[[ImageSplit], NDArray[np.uint64]]


def leaks(config: DataConfig, data: TrainingData, test: ImageSplit) -> tuple[str, ...]:
    """Which splits share images, by content, in a sentence each; none where all images are apart.

    Pixels are compared where both parts are in memory, and bytes of files where one is not.

    Raises:
        StorageError: the node's scratch folder cannot be written.
    """
    in_files = data.train.files is not None or test.files is not None
    of_training = partial(_hashes, config, SourcePart.TRAIN) if in_files else _pixels
    of_test = partial(_hashes, config, SourcePart.TEST) if in_files else _pixels
    return tuple(_told(data, test, of_training, of_test))


def _told(data: TrainingData, test: ImageSplit, of_training: _Hashes, of_test: _Hashes) -> Iterator[str]:
    train_N, selection_N, test_N = of_training(data.train), of_training(data.selection), of_test(test)
    if count := int(among(test_N, train_N).sum()):
        yield (
            f"{count:,} of {len(test_N):,} test images are in the training split too, by content: test "
            "accuracies count what was learned by heart; take them out of one of the two."
        )
    if count := int(among(test_N, selection_N).sum()):
        yield (
            f"{count:,} of {len(test_N):,} test images are in the selection split too, by content: the test "
            "split is no independent check of what was chosen."
        )
    if count := int(among(selection_N, train_N).sum()):
        yield (
            f"{count:,} of {len(selection_N):,} selection images are in the training split too, by content: "
            "selection accuracies are too high, and favour students that learn by heart."
        )


def _pixels(split: ImageSplit) -> NDArray[np.uint64]:
    return content_hashes(split.images)


def _hashes(config: DataConfig, part: SourcePart, split: ImageSplit) -> NDArray[np.uint64]:
    """Of the files, also where the images themselves are in memory: a file is found by its id."""
    return content_hashes(split.images) if split.files is not None else file_hashes(config, part)[split.ids]
