"""Names of an epoch's metrics that others read, the figures that may rank students, and the best epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

ACCURACY: Final = "selection/accuracy"
"""Accuracy on the selection split, a fraction in [0, 1]: what searches, selection and reports go by."""
NLL: Final = "selection/nll"
"""Mean negative log-likelihood on the selection split, in nats."""

ECE: Final = "selection/ece"
"""Expected calibration error on the selection split, of 15 bins."""

AGREEMENT: Final = "selection/agreement"
"""The fraction of the selection split to which student and teacher give the same class."""
KL_TO_TEACHER: Final = "selection/kl_to_teacher"
"""Mean KL(teacher || student) on the selection split, at temperature 1, in nats."""

KEPT: Final = "train/kept"
"""How the names of an objective's masks begin: the mean fraction of samples that each kept, in [0, 1]."""

LANES: Final = "train/lanes"
"""How many students were trained as one, in a pack, when the epoch began; missing where one was alone."""
FLOPS_PER_IMAGE: Final = "train/flops_per_image"
"""Floating-point operations of a training step, for each image of its batch."""
COMPUTE_OVER_CE: Final = "train/compute_over_ce"
"""Operations of an epoch over those of an epoch of cross-entropy with the same student."""
ENSEMBLE_ACCURACY: Final = "selection/ensemble_accuracy"
"""Accuracy on the selection split of a student and the networks trained with it, as one."""


def peer_accuracy(number: int) -> str:
    """The same of a network that was trained beside the student, alone; counted from 1."""
    return f"selection/peer{number}_accuracy"


class RankBy(StrEnum):
    """The figure by which epochs and students are ranked, a fraction in [0, 1]; the larger the better."""

    ACCURACY = "accuracy"
    """Of the network's own answers."""
    KNN_ACCURACY = "knn_accuracy"
    """Of the nearest training images by the network's features."""
    PROBE_ACCURACY = "probe_accuracy"
    """Of logistic regression on the network's features."""

    @property
    def metric(self) -> str:
        """Its name among the metrics of an epoch."""
        return ACCURACY if self is RankBy.ACCURACY else f"selection/{self.value}"

    @property
    def label(self) -> str:
        """What people call it."""
        return _LABELS[self]

    @property
    def is_of_features(self) -> bool:
        """Whether it judges what the network's features are worth, and not the network's own answers."""
        return self is not RankBy.ACCURACY


_LABELS: Final = {
    RankBy.ACCURACY: "accuracy",
    RankBy.KNN_ACCURACY: "kNN accuracy",
    RankBy.PROBE_ACCURACY: "probe accuracy",
}


def improves(figure: float | None, best: float | None) -> bool:
    """Whether an epoch is the best so far: the figure that ranks is higher than the best one before it.

    The first of several equal epochs is the best one. An epoch without the figure (None) is never the best.
    `best` is None before the first epoch with one.
    """
    return figure is not None and figure > (-math.inf if best is None else best)


def slot_seconds(metrics: Mapping[str, float]) -> float:
    """An epoch's share of its slot's time, in seconds: students of a pack have equal parts."""
    return metrics.get("seconds", 0.0) / metrics.get(LANES, 1.0)
