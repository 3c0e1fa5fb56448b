"""What the numbers of a brought file are: logits, log-probabilities (which are logits), or probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trainables.cache.format.logit_encoding import Float32s, Int64s
from trainables.config import BroughtValues
from trainables.errors import DataError

# N = rows of the file, C = classes

SUM_TOLERANCE: Final = 0.01
"""How far from 1 the sum of a row of probabilities may be: fp16 is up to 0.001 off, bf16 0.002."""
NAMED: Final = 5


def as_logits(path: Path, ids_N: Int64s, values_NC: npt.NDArray[Any], values: BroughtValues) -> Float32s:
    """The numbers of a file as float32 logits; of probabilities their logarithms, logits up to a constant.

    A probability of 0 is less than its type of number can hold: it counts as the smallest that it can.

    Raises:
        DataError: probabilities were brought as logits, or something else as probabilities.
    """
    if values == "logits":
        _refuse_probabilities(path, values_NC)
        return values_NC.astype(np.float32, copy=False)
    improper_N = ~_are_probabilities(values_NC)
    if improper_N.any():
        named = ", ".join(str(sample) for sample in ids_N[improper_N][:NAMED])
        more = ", ..." if improper_N.sum() > NAMED else ""
        raise DataError(
            f"{path}: {improper_N.sum():,} of {len(ids_N):,} rows are no probabilities, since a value is "
            f"below 0 or the sum is not 1 (sample ids {named}{more}); leave out --values probabilities where "
            "these are logits or log-probabilities"
        )
    least = np.finfo(values_NC.dtype).smallest_subnormal
    wide = np.promote_types(values_NC.dtype, np.float32)
    logits_NC: Float32s = np.log(np.maximum(values_NC, least), dtype=wide).astype(np.float32, copy=False)
    return logits_NC


def _refuse_probabilities(path: Path, values_NC: npt.NDArray[Any]) -> None:
    """Refuse a file in which most rows are probabilities: logits below 0 are in every other file."""
    n_rows, proper = len(values_NC), int(_are_probabilities(values_NC).sum())
    if 2 * proper > n_rows:
        raise DataError(
            f"{path}: these are probabilities and no logits: in {proper:,} of {n_rows:,} rows no value is "
            "below 0 and the sum is 1; give --values probabilities, and their logarithms are kept, which are "
            "logits up to a constant"
        )


def _are_probabilities(values_NC: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is no probability
        sums_N = values_NC.sum(axis=1, dtype=np.promote_types(values_NC.dtype, np.float32))
        near_N = np.abs(sums_N - 1) <= SUM_TOLERANCE
    proper_N: npt.NDArray[np.bool_] = near_N & (values_NC.min(axis=1, initial=np.inf) >= 0)
    return proper_N
