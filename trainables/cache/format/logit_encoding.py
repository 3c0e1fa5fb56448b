"""How logits are kept: the rounding of each precision, its inverse, and the scalars of the rounded values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trainables.cache.format.identity import require_top_k
from trainables.config import CacheIdentity, Precision
from trainables.config.cache import FeaturePrecision
from trainables.errors import CacheError

# B = rows, C = classes, K = classes that top-k keeps

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.floating[Any]]
Float32s = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]

BLOCK_NUMBERS: Final = 1 << 21
"""Logits that are rounded at a time, so that the intermediate copies of a shard stay small."""

FEATURE_DTYPES: Final[Mapping[FeaturePrecision, npt.DTypeLike]] = MappingProxyType(
    {FeaturePrecision.FP16: np.float16, FeaturePrecision.FP32: np.float32}
)

INT8_STEPS: Final = 255
INT8_TOP: Final = 127
"""What the largest logit of a row is kept as; each step below it is one `logit_scale` less."""


@dataclass(frozen=True)
class Column:
    """One column of kept values."""

    dtype: npt.DTypeLike
    width: int | None = None
    """Numbers in a row; none for a scalar."""


@dataclass(frozen=True)
class EncodedLogits:
    """Rows of logits as they are kept; the scalars are computed in float32 from exactly these values."""

    values: Mapping[str, Array]
    """By column of the file, as `value_columns` says."""
    logit_max_B: Float32s
    top1_B: npt.NDArray[np.int32]
    """First class with the largest kept logit."""
    confidence_B: Float32s
    """Largest softmax probability at temperature 1."""
    entropy_B: Float32s
    """Of the softmax at temperature 1, in nats."""


def value_columns(precision: Precision, n_classes: int, top_k: int | None = None) -> dict[str, Column]:
    """The columns in which a precision keeps logits.

    fp32: `logits`, z. fp16: `logits`, z - max(z). int8: `logits`, steps of `logit_scale` below the maximum,
    which is 127. topk: `top_logits`, z - max(z) of the K largest, in descending order; `top_classes`; and
    `residual_logsumexp`, log Σ exp(z - max(z)) over all other classes.

    Raises:
        CacheError: a top-k without K, or with a K that leaves no class for the residual.
    """
    match precision:
        case Precision.FP32:
            return {"logits": Column(np.float32, n_classes)}
        case Precision.FP16:
            return {"logits": Column(np.float16, n_classes)}
        case Precision.INT8:
            return {"logits": Column(np.int8, n_classes), "logit_scale": Column(np.float32)}
        case Precision.TOPK:
            width = require_top_k(top_k, n_classes)
            return {
                "top_logits": Column(np.float16, width),
                "top_classes": Column(np.int32, width),
                "residual_logsumexp": Column(np.float32),
            }


def columns_of(identity: CacheIdentity) -> dict[str, Column]:
    """The columns in which a cache keeps logits.

    Raises:
        CacheError: as for `value_columns`.
    """
    return value_columns(identity.dtype, identity.n_classes, identity.top_k)


def encode_logits(
    logits_BC: Float32s, ids_B: Int64s, precision: Precision, *, where: str, top_k: int | None = None
) -> EncodedLogits:
    """Round a teacher's float32 logits to the cache's precision.

    The confidence is that of the rounded logits, so that a threshold keeps the same samples whoever
    computes it from the cache.

    Raises:
        CacheError: logits that are not finite, or too far below their maximum for float16; it counts
            and names the rows (`where` says which view they belong to). Or a `top_k` that does not fit.
    """
    n_rows, n_classes = logits_BC.shape
    columns = value_columns(precision, n_classes, top_k)
    max_B = _refuse_unkeepable(logits_BC, ids_B, precision, where)
    values = {name: _empty(n_rows, column) for name, column in columns.items()}
    top1_B = np.empty(n_rows, np.int32)
    confidence_B, entropy_B = np.empty(n_rows, np.float32), np.empty(n_rows, np.float32)
    encode = _ENCODERS[precision]
    for rows in _blocks(n_rows, n_classes):
        part = encode(logits_BC[rows], max_B[rows], top_k or 0)
        for name, array in values.items():
            array[rows] = part[name]
        top1_B[rows], confidence_B[rows], entropy_B[rows] = _scalars(decode(part, n_classes))
    return EncodedLogits(MappingProxyType(values), max_B, top1_B, confidence_B, entropy_B)


def decode(values: Mapping[str, Array], n_classes: int) -> Float32s:
    """BxC float32 logits of kept rows: z for fp32, z - max(z) for every other precision.

    int8 is at most half a `logit_scale` off. From top-k it is a dense reconstruction: the K largest as they
    are kept, and the residual mass spread evenly over all other classes. At T = 1 each kept class then has
    the probability that it had; the others have it only in sum, and at other temperatures not even that.
    """
    if "top_logits" in values:
        top_BK = values["top_logits"]
        n_others = n_classes - top_BK.shape[1]
        even_B = values["residual_logsumexp"] - np.float32(np.log(n_others))
        logits_BC = np.repeat(even_B[:, None], n_classes, axis=1)
        np.put_along_axis(logits_BC, values["top_classes"], top_BK.astype(np.float32), axis=1)
        return logits_BC
    logits_BC = values["logits"].astype(np.float32)
    if "logit_scale" in values:
        logits_BC -= np.float32(INT8_TOP)
        logits_BC *= values["logit_scale"][:, None]
    return logits_BC


def kept_feature(values: Floats, ids_B: Int64s, precision: FeaturePrecision, what: str) -> Floats:
    """A feature (B x ...) in the dtype in which it is kept.

    Raises:
        CacheError: some numbers are not finite there; it begins with `what`, counts and names the rows.
    """
    with np.errstate(over="ignore"):  # an overflow becomes infinite, which the next line reports
        kept = values.astype(FEATURE_DTYPES[precision], copy=False)
    bad = np.flatnonzero(~np.isfinite(kept.reshape(len(kept), -1)).all(axis=1))
    cure = "" if precision is FeaturePrecision.FP32 else "set cache.feature_precision to fp32, or "
    _refuse_rows(
        bad, ids_B, f"{what} are not finite in {precision.value}", f"check the teacher, {cure}do without it"
    )
    return kept


def _encode_fp32(logits_BC: Float32s, _max_B: Float32s, _top_k: int) -> dict[str, Array]:
    return {"logits": logits_BC}


def _encode_fp16(logits_BC: Float32s, max_B: Float32s, _top_k: int) -> dict[str, Array]:
    return {"logits": (logits_BC - max_B[:, None]).astype(np.float16)}


def _encode_int8(logits_BC: Float32s, max_B: Float32s, _top_k: int) -> dict[str, Array]:
    below_BC = max_B[:, None] - logits_BC
    scale_B = below_BC.max(axis=1) / np.float32(INT8_STEPS)
    # Where all logits are equal, or differ by less than fp32 can show, there is no step: all are the maximum.
    divisor_B = np.where(scale_B > 0, scale_B, np.float32(1))
    steps_BC = np.clip(np.rint(below_BC / divisor_B[:, None]), 0, INT8_STEPS)
    return {"logits": (INT8_TOP - steps_BC).astype(np.int8), "logit_scale": scale_B}


def _encode_topk(logits_BC: Float32s, max_B: Float32s, top_k: int) -> dict[str, Array]:
    shifted_BC = logits_BC - max_B[:, None]
    top_BK = np.argpartition(logits_BC, -top_k, axis=1)[:, -top_k:]
    top_BK.sort(axis=1)  # so that of equal logits the first class comes first
    order_BK = np.argsort(-np.take_along_axis(logits_BC, top_BK, axis=1), axis=1, kind="stable")
    top_BK = np.take_along_axis(top_BK, order_BK, axis=1)
    kept_BK = np.take_along_axis(shifted_BC, top_BK, axis=1)
    np.put_along_axis(shifted_BC, top_BK, -np.inf, axis=1)
    largest_B = shifted_BC.max(axis=1)
    shifted_BC -= largest_B[:, None]
    residual_B = largest_B + np.log(np.exp(shifted_BC).sum(axis=1, dtype=np.float32))
    return {
        "top_logits": kept_BK.astype(np.float16),
        "top_classes": top_BK.astype(np.int32),
        "residual_logsumexp": residual_B,
    }


_ENCODERS: Final[Mapping[Precision, Callable[[Float32s, Float32s, int], dict[str, Array]]]] = (
    MappingProxyType(
        {
            Precision.FP32: _encode_fp32,
            Precision.FP16: _encode_fp16,
            Precision.INT8: _encode_int8,
            Precision.TOPK: _encode_topk,
        }
    )
)


def _scalars(logits_BC: Float32s) -> tuple[npt.NDArray[np.int32], Float32s, Float32s]:
    """First largest class, its probability, and the entropy of each row; the logits are overwritten."""
    logits_BC -= logits_BC.max(axis=1, keepdims=True)
    exp_BC = np.exp(logits_BC)
    sum_B = exp_BC.sum(axis=1, dtype=np.float32)
    # H = log Σ exp(s) - Σ s exp(s) / Σ exp(s), for s = z - max z
    entropy_B = np.log(sum_B) - (logits_BC * exp_BC).sum(axis=1, dtype=np.float32) / sum_B
    confidence_B = np.float32(1) / sum_B
    return logits_BC.argmax(axis=1).astype(np.int32), confidence_B, np.maximum(entropy_B, np.float32(0))


def _refuse_unkeepable(logits_BC: Float32s, ids_B: Int64s, precision: Precision, where: str) -> Float32s:
    """The maximum of each row; raises when a row holds a logit that cannot be kept."""
    max_B: Float32s = logits_BC.max(axis=1)
    min_B: Float32s = logits_BC.min(axis=1)
    finite_B = np.isfinite(max_B) & np.isfinite(
        min_B
    )  # a NaN is both the largest and the smallest of its row
    _refuse_rows(
        np.flatnonzero(~finite_B),
        ids_B,
        f"{where}: logits are not finite",
        "check the teacher's weights and the data set's mean and std",
    )
    if precision is not Precision.FP32:
        with np.errstate(over="ignore"):  # an overflow becomes -inf, which the next line reports
            lowest_B = (min_B - max_B).astype(np.float16)
        _refuse_rows(
            np.flatnonzero(~np.isfinite(lowest_B)),
            ids_B,
            f"{where}: logits lie more than 65504 below their maximum, too far for {precision.value}",
            "check the teacher, or set cache.precision to fp32",
        )
    return max_B


def _refuse_rows(bad: npt.NDArray[np.intp], ids_B: Int64s, what: str, advice: str) -> None:
    bad_ids = ids_B[bad]
    if len(bad_ids):
        named = ", ".join(str(sample) for sample in bad_ids[:5]) + (", …" if len(bad_ids) > 5 else "")
        raise CacheError(f"{what} in {len(bad_ids)} of {len(ids_B)} rows (sample ids {named}); {advice}")


def _empty(n_rows: int, column: Column) -> Array:
    return np.empty((n_rows,) if column.width is None else (n_rows, column.width), column.dtype)


def _blocks(n_rows: int, n_classes: int) -> Iterator[slice]:
    step = max(1, BLOCK_NUMBERS // n_classes)
    for first in range(0, n_rows, step):
        yield slice(first, first + step)
