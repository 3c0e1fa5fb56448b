"""What a precision costs: the divergence from the teacher's own probabilities to those that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from trainables.cache.format.logit_encoding import Float32s, decode, encode_logits
from trainables.config import Config, Precision

# B = rows, C = classes

TEMPERATURES: Final = (1.0, 4.0)


class FidelityRow(Config):
    """How near one precision stays to the teacher, at one temperature."""

    precision: Precision
    temperature: float
    mean_kl: float = Field(description="KL(teacher ‖ kept), nats, mean over rows")
    row_bytes: int = Field(description="of the kept logits of one row, without ids and scalars common to all")


def fidelity(
    logits_BC: Float32s,
    precisions: Sequence[Precision] = tuple(Precision),
    temperatures: Sequence[float] = TEMPERATURES,
    *,
    top_k: int = 100,
) -> list[FidelityRow]:
    """Mean KL(softmax(z / T) ‖ softmax(z' / T)) of each precision and temperature, z' = z kept and decoded.

    Takes float32 logits of a sample of rows and computes in float64. A top-k that would keep every class is
    left out.

    Raises:
        CacheError: logits that are not finite, or that a precision cannot keep.
    """
    n_rows, n_classes = logits_BC.shape
    rows: list[FidelityRow] = []
    for precision in precisions:
        if precision is Precision.TOPK and top_k >= n_classes:
            continue
        encoded = encode_logits(logits_BC, np.arange(n_rows), precision, where="the sample", top_k=top_k)
        decoded_BC = decode(encoded.values, n_classes)
        row_bytes = sum(array.nbytes for array in encoded.values.values()) // n_rows
        rows += [
            FidelityRow(
                precision=precision,
                temperature=temperature,
                mean_kl=_mean_kl(logits_BC, decoded_BC, temperature),
                row_bytes=row_bytes,
            )
            for temperature in temperatures
        ]
    return rows


def _mean_kl(teacher_BC: Float32s, kept_BC: Float32s, temperature: float) -> float:
    teacher_log_BC = _log_softmax(teacher_BC, temperature)
    kept_log_BC = _log_softmax(kept_BC, temperature)
    kl_B = (np.exp(teacher_log_BC) * (teacher_log_BC - kept_log_BC)).sum(axis=1)
    return max(float(kl_B.mean()), 0.0)  # what float64 leaves of equal distributions may lie below 0


def _log_softmax(logits_BC: Float32s, temperature: float) -> npt.NDArray[np.float64]:
    scaled_BC = logits_BC.astype(np.float64) / temperature
    scaled_BC -= scaled_BC.max(axis=1, keepdims=True)
    scaled_BC -= np.log(np.exp(scaled_BC).sum(axis=1, keepdims=True))
    return scaled_BC
