"""The file of what a student, and its teacher, answered on a split: image by image, for pages about them.

It is written where PyTorch is, and read where it is not; nothing in it is unpickled.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trainables.errors import DataError, StorageError
from trainables.foreign_files import foreign_file
from trainables.local_files import replacing

VERSION: Final = 1
_FIGURES: Final = ("accuracy", "nll", "ece")
_STUDENT, _TEACHER = "student", "teacher"

# N = samples of the split, C = classes, E = bins of confidence, K = pictures, H, W = height and width,
# D = channels of a picture, 1 or 3


@dataclass(frozen=True)
class NetworkAnswers:
    """What one network answered on a split."""

    answers_N: NDArray[np.int64]
    """The most probable class."""
    confidence_N: NDArray[np.float32]
    """Its probability."""
    figures: dict[str, float]
    """`accuracy`, `nll` (nats) and `ece`, as `metrics.evaluate` defines them."""
    bins_E3: NDArray[np.float64]
    """Samples, mean confidence and accuracy of each of the equal bins over which `ece` is summed; the last
    two are nan where a bin is empty."""
    right_C: NDArray[np.int64]
    """How many samples of each class are named rightly."""


@dataclass(frozen=True)
class KeptAnswers:
    """All that the file holds."""

    classes: tuple[str, ...]
    """In the order of the logits."""
    ids_N: NDArray[np.int64]
    """Of the samples: their rows in the part of the data set that they come from."""
    labels_N: NDArray[np.int64]
    images_C: NDArray[np.int64]
    """How many samples are of each class."""
    student: NetworkAnswers
    teacher: NetworkAnswers | None
    """None where no teacher was asked."""
    shown_K: NDArray[np.int64]
    """Samples, by their place in the split, on which the two disagree, the most confident first."""
    pictures_KHWD: NDArray[np.uint8]
    """Their images in the same order; none of them (0xHxWxD) where they are neither grey nor coloured."""


def write_answers(path: Path, answers: KeptAnswers) -> None:
    """Write the file whole.

    Raises:
        StorageError: it cannot be written.
    """
    arrays: dict[str, Any] = {
        "version": np.array(VERSION),
        "classes": np.array(answers.classes, dtype=np.str_),
        "ids": answers.ids_N,
        "labels": answers.labels_N,
        "images": answers.images_C,
        "shown": answers.shown_K,
        "pictures": answers.pictures_KHWD,
        **_arrays(_STUDENT, answers.student),
        **(_arrays(_TEACHER, answers.teacher) if answers.teacher else {}),
    }
    try:
        with replacing(path) as beside, beside.open("wb") as opened:  # by a path, savez would add a suffix
            np.savez_compressed(opened, **arrays)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error}; free space and run again") from error


def read_answers(path: Path) -> KeptAnswers:
    """What a file of answers holds.

    Raises:
        DataError: it cannot be read, is damaged, or was written by another version.
    """
    with (
        foreign_file(lambda why: DataError(f"{path} holds no answers that this version can read: {why}")),
        np.load(path, allow_pickle=False) as kept,
    ):
        if (version := int(kept["version"])) != VERSION:
            raise DataError(f"{path} is of version {version}, and this release reads version {VERSION}")
        found = KeptAnswers(
            classes=tuple(str(name) for name in kept["classes"]),
            ids_N=kept["ids"],
            labels_N=kept["labels"],
            images_C=kept["images"],
            student=_network(_STUDENT, kept),
            teacher=_network(_TEACHER, kept) if f"{_TEACHER}_answers" in kept else None,
            shown_K=kept["shown"],
            pictures_KHWD=kept["pictures"],
        )
        _require_whole(found)
        return found


def _arrays(who: str, network: NetworkAnswers) -> dict[str, NDArray[Any]]:
    return {
        f"{who}_answers": network.answers_N,
        f"{who}_confidence": network.confidence_N,
        f"{who}_figures": np.array([network.figures[name] for name in _FIGURES]),
        f"{who}_bins": network.bins_E3,
        f"{who}_right": network.right_C,
    }


def _network(who: str, kept: Any) -> NetworkAnswers:
    return NetworkAnswers(
        answers_N=kept[f"{who}_answers"],
        confidence_N=kept[f"{who}_confidence"],
        figures=dict(zip(_FIGURES, kept[f"{who}_figures"].tolist(), strict=True)),
        bins_E3=kept[f"{who}_bins"],
        right_C=kept[f"{who}_right"],
    )


def _require_whole(found: KeptAnswers) -> None:
    """Refuse arrays that do not belong together, before a page indexes one by another.

    Raises:
        ValueError: they do not.
    """
    n_samples, n_classes = len(found.labels_N), len(found.classes)
    networks = [network for network in (found.student, found.teacher) if network]
    of_samples = {len(found.ids_N), *(len(network.answers_N) for network in networks)}
    of_samples |= {len(network.confidence_N) for network in networks}
    of_classes = {len(found.images_C), *(len(network.right_C) for network in networks)}
    if of_samples != {n_samples} or of_classes != {n_classes}:
        raise ValueError("its arrays are of different lengths")
    classes = [found.labels_N, *(network.answers_N for network in networks)]
    if not n_samples or any(each.min() < 0 or each.max() >= n_classes for each in classes):
        raise ValueError(f"its answers are not all of its {n_classes} classes")
    if any(network.bins_E3.ndim != 2 or network.bins_E3.shape[1] != 3 for network in networks):
        raise ValueError("its bins of confidence have other figures")
    if len(found.shown_K) and (found.shown_K.min() < 0 or found.shown_K.max() >= n_samples):
        raise ValueError("it shows samples that it does not have")
    pictures = found.pictures_KHWD
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or len(pictures) not in (0, len(found.shown_K)):
        raise ValueError("its pictures are none of its samples")
    if len(pictures) and pictures.shape[3] not in (1, 3):
        raise ValueError("its pictures are neither grey nor coloured")
