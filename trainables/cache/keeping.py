"""How logits are kept: the rounding, and the scalars that go with the rounded values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trainables.config import Precision
from trainables.errors import CacheError

# B = rows, C = classes

Floats = npt.NDArray[np.floating[Any]]
Float32s = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]

DTYPES: Final[Mapping[Precision, npt.DTypeLike]] = MappingProxyType(
    {Precision.FP16: np.float16, Precision.FP32: np.float32}
)


@dataclass(frozen=True)
class Kept:
    """Rows of logits as they are kept; the scalars are computed in float32 from exactly these values."""

    logits_BC: Floats
    """fp16: z - max(z); fp32: z."""
    logit_max_B: Float32s
    top1_B: npt.NDArray[np.int32]
    """First class with the largest kept logit."""
    confidence_B: Float32s
    """Largest softmax probability at temperature 1."""
    entropy_B: Float32s
    """Of the softmax at temperature 1, in nats."""


def keep_logits(logits_BC: Float32s, ids_B: Int64s, precision: Precision, *, where: str) -> Kept:
    """Round a teacher's float32 logits to the cache's precision.

    The confidence is that of the rounded logits, so that a threshold keeps the same samples whoever
    computes it from the cache.

    Raises:
        CacheError: logits that are not finite, or too far below their maximum for float16; it counts
            and names the rows (`where` says which view they belong to).
    """
    _refuse_rows(
        logits_BC,
        ids_B,
        f"{where}: logits are not finite",
        "check the teacher's weights and the data set's mean and std",
    )
    max_B = logits_BC.max(axis=1)
    if precision is Precision.FP32:
        kept_BC: Floats = logits_BC
    else:
        with np.errstate(over="ignore"):  # an overflow becomes -inf, which the next line reports
            kept_BC = (logits_BC - max_B[:, None]).astype(np.float16)
        _refuse_rows(
            kept_BC,
            ids_B,
            f"{where}: logits lie more than 65504 below their maximum, too far for fp16",
            "check the teacher, or set cache.precision to fp32",
        )
    top1_B, confidence_B, entropy_B = _scalars(kept_BC)
    return Kept(kept_BC, max_B, top1_B, confidence_B, entropy_B)


def _scalars(kept_BC: Floats) -> tuple[npt.NDArray[np.int32], Float32s, Float32s]:
    shifted_BC = kept_BC.astype(np.float32)
    shifted_BC -= shifted_BC.max(axis=1, keepdims=True)
    exp_BC = np.exp(shifted_BC)
    sum_B = exp_BC.sum(axis=1, dtype=np.float32)
    # H = log Σ exp(s) - Σ s exp(s) / Σ exp(s), for s = z - max z
    entropy_B = np.log(sum_B) - (shifted_BC * exp_BC).sum(axis=1, dtype=np.float32) / sum_B
    confidence_B = np.float32(1) / sum_B
    return shifted_BC.argmax(axis=1).astype(np.int32), confidence_B, np.maximum(entropy_B, np.float32(0))


def _refuse_rows(values_BC: Floats, ids_B: Int64s, what: str, advice: str) -> None:
    """Raise when a row holds a value that is not finite."""
    bad_ids = ids_B[np.any(~np.isfinite(values_BC), axis=1)]
    if len(bad_ids):
        named = ", ".join(str(sample) for sample in bad_ids[:5]) + (", …" if len(bad_ids) > 5 else "")
        raise CacheError(f"{what} in {len(bad_ids)} of {len(ids_B)} rows (sample ids {named}); {advice}")
