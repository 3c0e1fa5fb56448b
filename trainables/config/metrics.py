"""Names of an epoch's metrics that others read, and the rule of the best epoch."""

from __future__ import annotations

import math
from typing import Final

ACCURACY: Final = "selection/accuracy"
"""Accuracy on the selection split, a fraction in [0, 1]: what searches, selection and reports go by."""
NLL: Final = "selection/nll"
"""Mean negative log-likelihood on the selection split, in nats."""

ECE: Final = "selection/ece"
"""Expected calibration error on the selection split, of 15 bins."""


def improves(accuracy: float | None, best: float | None) -> bool:
    """Whether an epoch is the best so far: its selection accuracy is higher than the best one before it.

    The first of several equal epochs is the best one. An epoch without an accuracy (None) is never the best.
    `best` is None before the first epoch with an accuracy.
    """
    return accuracy is not None and accuracy > (-math.inf if best is None else best)
