"""Whether kept rows are what a live teacher says, within the rounding of their precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from trainables.cache.format.logit_encoding import Array, Float32s, decode
from trainables.config.cache import FeaturePrecision

# P = rows that are compared, C = classes, K = classes that top-k keeps, D = numbers in a row of a feature

ABSOLUTE_TOLERANCE: Final = 1e-4
RELATIVE_TOLERANCE: Final = 1e-5
"""Of the largest logit: sums in another order (batch size, device) differ in proportion to it."""


def disagreement(
    values: Mapping[str, Array], logit_max_P: Float32s, live_PC: Float32s, *, tolerance: float = 0.0
) -> tuple[Float32s, Float32s]:
    """Largest difference of a kept number of each row, and by how much the row passes its bound.

    A row agrees when the second number is at most 0 (it is not when it is no number). `values` are the kept
    rows by column. Of a top-k, the kept classes are compared, and the residual log-sum-exp with that of the
    teacher's other classes. `tolerance`, absolute and of the largest logit, is for a teacher whose own sums
    are coarse.
    """
    slack_P = _slack(live_PC, tolerance)
    max_P = live_PC.max(axis=1)
    max_excess_P = np.abs(logit_max_P - max_P) - slack_P
    if "top_logits" in values:
        difference_P, excess_P = _compare_top(values, live_PC - max_P[:, None], slack_P)
    else:
        difference_P, excess_P = _compare_all(values, live_PC, slack_P)
    return difference_P, np.maximum(excess_P, max_excess_P)


def feature_disagreement(
    kept_PD: Float32s, live_PD: Float32s, precision: FeaturePrecision, *, tolerance: float = 0.0
) -> tuple[Float32s, Float32s]:
    """The same for the rows of a feature, as kept in this precision and widened to float32."""
    slack_P = _slack(live_PD, tolerance)
    difference_PD = np.abs(kept_PD - live_PD)
    excess_PD = difference_PD - slack_P[:, None]
    if precision is FeaturePrecision.FP16:
        excess_PD -= _half_units(live_PD)
    return difference_PD.max(axis=1), excess_PD.max(axis=1)


def _compare_all(
    values: Mapping[str, Array], live_PC: Float32s, slack_P: Float32s
) -> tuple[Float32s, Float32s]:
    bound_PC: Array = np.broadcast_to(slack_P[:, None], live_PC.shape)
    if values["logits"].dtype != np.float32:
        live_PC = live_PC - live_PC.max(axis=1, keepdims=True)
        step_P = values.get("logit_scale")
        bound_PC = bound_PC + (_half_units(live_PC) if step_P is None else step_P[:, None] / np.float32(2))
    difference_PC = np.abs(decode(values, live_PC.shape[1]) - live_PC)
    return difference_PC.max(axis=1), (difference_PC - bound_PC).max(axis=1)


def _compare_top(
    values: Mapping[str, Array], shifted_PC: Float32s, slack_P: Float32s
) -> tuple[Float32s, Float32s]:
    classes_PK = values["top_classes"]
    live_PK = np.take_along_axis(shifted_PC, classes_PK, axis=1)
    difference_PK = np.abs(values["top_logits"].astype(np.float32) - live_PK)
    others_PC = shifted_PC.copy()
    np.put_along_axis(others_PC, classes_PK, -np.inf, axis=1)
    residual_P: Float32s = np.abs(values["residual_logsumexp"] - np.logaddexp.reduce(others_PC, axis=1))
    excess_P = (difference_PK - _half_units(live_PK)).max(axis=1)
    difference_P = np.maximum(difference_PK.max(axis=1), residual_P)
    return difference_P, np.maximum(excess_P, residual_P) - slack_P


def _slack(live_PC: Float32s, tolerance: float) -> Float32s:
    """How far each row may be off beside its rounding: in absolute terms, and of its largest number."""
    largest_P: Float32s = np.abs(live_PC).max(axis=1)
    return ABSOLUTE_TOLERANCE + tolerance + (RELATIVE_TOLERANCE + tolerance) * largest_P


def _half_units(values: Float32s) -> Float32s:
    """Half a unit in the last place of float16: at most 2^-11 of a normal value, 2^-25 of a subnormal one."""
    return np.abs(values) * np.float32(2.0**-11) + np.float32(2.0**-25)
