from __future__ import annotations

import math

import numpy as np
import pytest

from trainables.cache.format.logit_encoding import Float32s
from trainables.cache.tools.fidelity import FidelityRow, fidelity
from trainables.config import Precision
from trainables.errors import CacheError


def peaked_logits(n_rows: int = 200, n_classes: int = 1000) -> Float32s:
    """One class that stands out in each row, as a trained teacher's does."""
    generator = np.random.default_rng(0)
    logits = generator.normal(scale=2, size=(n_rows, n_classes)).astype(np.float32)
    logits[np.arange(n_rows), generator.integers(n_classes, size=n_rows)] += 12
    return logits


def by_precision(rows: list[FidelityRow]) -> dict[tuple[Precision, float], float]:
    return {(row.precision, row.temperature): row.mean_kl for row in rows}


def test_divergences_have_the_order_of_the_precisions() -> None:
    kl = by_precision(fidelity(peaked_logits()))
    assert kl[Precision.FP32, 1.0] == 0.0
    assert 0 < kl[Precision.FP16, 1.0] < 1e-6
    assert 0 < kl[Precision.FP16, 4.0] < 1e-6
    assert 1e-6 < kl[Precision.INT8, 1.0] < 1e-3
    assert 1e-6 < kl[Precision.INT8, 4.0] < 1e-3
    assert kl[Precision.INT8, 1.0] < kl[Precision.TOPK, 1.0]
    assert kl[Precision.TOPK, 1.0] < kl[Precision.TOPK, 4.0] < 1


def test_more_logits_of_a_row_come_nearer_to_the_teacher() -> None:
    few, many = (
        by_precision(fidelity(peaked_logits(), [Precision.TOPK], [4.0], top_k=top_k)) for top_k in (50, 500)
    )
    assert many[Precision.TOPK, 4.0] < few[Precision.TOPK, 4.0] / 3


def test_a_divergence_of_known_probabilities() -> None:
    # The two classes that are not kept have 0.3 and 0.1; spread evenly, each has 0.2.
    logits = np.log(np.array([[0.6, 0.3, 0.1]], dtype=np.float32))
    (row,) = fidelity(logits, [Precision.TOPK], [1.0], top_k=1)
    assert row.mean_kl == pytest.approx(0.3 * math.log(0.3 / 0.2) + 0.1 * math.log(0.1 / 0.2), rel=1e-5)


def test_rows_tell_the_bytes_of_what_is_kept() -> None:
    rows = fidelity(peaked_logits(4), temperatures=[1.0])
    assert {row.precision: row.row_bytes for row in rows} == {
        Precision.FP16: 2000,
        Precision.FP32: 4000,
        Precision.INT8: 1004,
        Precision.TOPK: 604,
    }


def test_a_top_k_of_all_classes_is_left_out() -> None:
    rows = fidelity(peaked_logits(4, 10), temperatures=[1.0])
    assert [row.precision for row in rows] == [Precision.FP16, Precision.FP32, Precision.INT8]


def test_logits_that_a_precision_cannot_keep_are_refused() -> None:
    with pytest.raises(CacheError, match="the sample: logits are not finite in 1 of 2 rows"):
        fidelity(np.array([[0, 1], [np.nan, 0]], dtype=np.float32), [Precision.INT8])
