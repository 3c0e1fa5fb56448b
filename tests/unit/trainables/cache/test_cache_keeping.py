from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trainables.cache.keeping import Float32s, keep_logits
from trainables.config import Precision
from trainables.errors import CacheError

LOGITS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=6),
    elements=st.floats(-3e4, 3e4, width=32),
)


def ids_of(logits: Float32s) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return 10 + np.arange(len(logits))


@settings(deadline=None)
@given(LOGITS)
def test_fp16_keeps_each_distance_from_the_maximum_within_half_a_unit(logits: Float32s) -> None:
    kept = keep_logits(logits, ids_of(logits), Precision.FP16, where="here")
    distances = (logits - logits.max(axis=1, keepdims=True)).astype(np.float64)
    bound = np.abs(distances) * 2.0**-11 + 2.0**-25
    assert kept.logits_BC.dtype == np.float16
    assert np.all(np.abs(kept.logits_BC - distances) <= bound)
    assert np.array_equal(kept.logit_max_B, logits.max(axis=1))


@settings(deadline=None)
@given(LOGITS, st.sampled_from(Precision))
def test_scalars_are_those_of_the_logits_as_kept(logits: Float32s, precision: Precision) -> None:
    kept = keep_logits(logits, ids_of(logits), precision, where="here")
    exact = kept.logits_BC.astype(np.float64)
    exact = np.exp(exact - exact.max(axis=1, keepdims=True))
    exact /= exact.sum(axis=1, keepdims=True)
    entropy = -(exact * np.log(np.maximum(exact, 1e-300))).sum(axis=1)
    np.testing.assert_allclose(kept.confidence_B, exact.max(axis=1), rtol=1e-6)
    np.testing.assert_allclose(kept.entropy_B, entropy, atol=2e-6)
    assert np.array_equal(kept.top1_B, kept.logits_BC.argmax(axis=1))


def test_confidence_of_known_logits() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]], dtype=np.float32))
    kept = keep_logits(logits, ids_of(logits), Precision.FP32, where="here")
    np.testing.assert_allclose(kept.confidence_B, [0.5, 0.6], rtol=1e-6)
    np.testing.assert_allclose(kept.entropy_B, [1.0397208, 0.9502705], rtol=1e-6)
    assert kept.top1_B.tolist() == [0, 2]


def test_confidence_follows_the_rounding() -> None:
    logits = np.array([[0.0, -1.0003]], dtype=np.float32)  # fp16 has a step of 2^-10 there: -1 is kept
    kept = keep_logits(logits, ids_of(logits), Precision.FP16, where="here")
    assert kept.confidence_B[0] == np.float32(1) / (np.float32(1) + np.exp(np.float32(-1)))


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_counted_and_named(precision: Precision, bad: float) -> None:
    logits = np.zeros((8, 3), dtype=np.float32)
    logits[1:8, 2] = bad
    with pytest.raises(
        CacheError, match=r"here: logits are not finite in 7 of 8 rows \(sample ids 11, 12, 13, 14, 15, …\)"
    ):
        keep_logits(logits, ids_of(logits), precision, where="here")


def test_saturated_logits_are_refused_in_fp16_and_kept_in_fp32() -> None:
    logits = np.array([[0.0, 1.0], [-70_000.0, 0.0]], dtype=np.float32)
    with pytest.raises(CacheError, match=r"65504.* in 1 of 2 rows \(sample ids 11\).*precision to fp32"):
        keep_logits(logits, ids_of(logits), Precision.FP16, where="here")
    assert np.array_equal(keep_logits(logits, ids_of(logits), Precision.FP32, where="").logits_BC, logits)


def test_a_large_offset_costs_no_precision() -> None:
    logits = np.array([[1e5, 1e5 - 2.0]], dtype=np.float32)
    assert keep_logits(logits, ids_of(logits), Precision.FP16, where="here").logits_BC.tolist() == [[0, -2]]
