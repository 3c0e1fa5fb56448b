from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trainables.cache.format.logit_encoding import (
    EncodedLogits,
    Float32s,
    decode,
    encode_logits,
    value_columns,
)
from trainables.config import Precision
from trainables.errors import CacheError

LOGITS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=6),
    elements=st.floats(-3e4, 3e4, width=32),
)


def ids_of(logits: Float32s) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return 10 + np.arange(len(logits))


def keep(logits: Float32s, precision: Precision, top_k: int = 1) -> EncodedLogits:
    return encode_logits(logits, ids_of(logits), precision, where="here", top_k=top_k)


def decoded(encoded: EncodedLogits, n_classes: int) -> npt.NDArray[np.float64]:
    return decode(encoded.values, n_classes).astype(np.float64)


def distances_of(logits: Float32s) -> npt.NDArray[np.float64]:
    """z - max z, exactly."""
    exact = logits.astype(np.float64)
    distances: npt.NDArray[np.float64] = exact - exact.max(axis=1, keepdims=True)
    return distances


def half_unit(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Half a unit in the last place in float16, and what float32 loses by subtracting the maximum before."""
    bound: npt.NDArray[np.float64] = np.abs(values) * (2.0**-11 + 2.0**-23) + 2.0**-25
    return bound


@settings(deadline=None, max_examples=30)
@given(LOGITS)
def test_fp16_keeps_each_distance_from_the_maximum_within_half_a_unit(logits: Float32s) -> None:
    encoded = keep(logits, Precision.FP16)
    distances = distances_of(logits)
    assert encoded.values["logits"].dtype == np.float16
    assert np.all(np.abs(decoded(encoded, logits.shape[1]) - distances) <= half_unit(distances))
    assert np.array_equal(encoded.logit_max_B, logits.max(axis=1))


@settings(deadline=None, max_examples=30)
@given(LOGITS)
def test_fp32_keeps_the_logits_themselves(logits: Float32s) -> None:
    encoded = keep(logits, Precision.FP32)
    assert np.array_equal(decode(encoded.values, logits.shape[1]), logits)
    assert np.array_equal(encoded.logit_max_B, logits.max(axis=1))


@settings(deadline=None, max_examples=30)
@given(LOGITS)
def test_int8_keeps_each_distance_within_half_a_step_of_which_255_span_the_row(logits: Float32s) -> None:
    encoded = keep(logits, Precision.INT8)
    distances = distances_of(logits)
    step = -distances.min(axis=1) / 255
    np.testing.assert_allclose(encoded.values["logit_scale"], step, rtol=1e-6, atol=1e-40)
    error = np.abs(decoded(encoded, logits.shape[1]) - distances)
    assert np.all(error <= step[:, None] * (0.5 + 1e-4) + 1e-40)
    assert np.all(encoded.values["logits"].max(axis=1) == 127)
    assert np.array_equal(encoded.logit_max_B, logits.max(axis=1))


@settings(deadline=None, max_examples=30)
@given(LOGITS, st.integers(1, 5))
def test_topk_keeps_the_largest_in_order_and_the_mass_of_the_others(logits: Float32s, top_k: int) -> None:
    n_classes = logits.shape[1]
    top_k = min(top_k, n_classes - 1)
    encoded = keep(logits, Precision.TOPK, top_k)
    classes = encoded.values["top_classes"]
    distances = distances_of(logits)
    largest = -np.sort(-distances, axis=1)
    assert classes.shape == (len(logits), top_k)
    top = np.take_along_axis(distances, classes, axis=1)
    assert np.array_equal(top, largest[:, :top_k])
    assert np.all(np.abs(encoded.values["top_logits"] - top) <= half_unit(top))
    residual = np.logaddexp.reduce(largest[:, top_k:], axis=1)
    np.testing.assert_allclose(encoded.values["residual_logsumexp"], residual, rtol=1e-6, atol=1e-6)
    restored = decoded(encoded, n_classes)
    np.put_along_axis(restored, classes, -np.inf, axis=1)
    np.testing.assert_allclose(np.logaddexp.reduce(restored, axis=1), residual, rtol=1e-6, atol=1e-5)
    others = restored[np.isfinite(restored)].reshape(len(logits), -1)
    assert np.all(others == others[:, :1])


def test_topk_of_known_logits_is_decoded_with_the_residual_spread_evenly() -> None:
    logits = np.log(np.array([[0.1, 0.5, 0.1, 0.3]], dtype=np.float32))
    encoded = keep(logits, Precision.TOPK, 2)
    assert encoded.values["top_classes"].tolist() == [[1, 3]]
    np.testing.assert_allclose(encoded.values["residual_logsumexp"], [np.log(0.2 / 0.5)], rtol=1e-6)
    restored = decoded(encoded, 4)
    probabilities = np.exp(restored) / np.exp(restored).sum()
    np.testing.assert_allclose(probabilities, [[0.1, 0.5, 0.1, 0.3]], rtol=2e-4)


def test_int8_of_known_logits_is_steps_below_the_maximum() -> None:
    encoded = keep(np.array([[3.0, 0.0, -48.0]], dtype=np.float32), Precision.INT8)
    assert encoded.values["logit_scale"].tolist() == [np.float32(0.2)]
    assert encoded.values["logits"].tolist() == [[127, 112, -128]]
    np.testing.assert_allclose(decoded(encoded, 3), [[0, -3, -51]], rtol=1e-6)


@pytest.mark.parametrize("precision", list(Precision))
def test_rows_are_kept_alike_however_many_there_are(
    precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = np.random.default_rng(0).normal(scale=4, size=(50, 7)).astype(np.float32)
    whole = keep(logits, precision, 3)
    monkeypatch.setattr("trainables.cache.format.logit_encoding.BLOCK_NUMBERS", 20)
    parts = keep(logits, precision, 3)
    for name, values in whole.values.items():
        assert np.array_equal(values, parts.values[name])
    assert np.array_equal(whole.entropy_B, parts.entropy_B)
    assert np.array_equal(whole.confidence_B, parts.confidence_B)


@pytest.mark.parametrize("precision", list(Precision))
def test_a_row_of_equal_logits_is_kept_exactly(precision: Precision) -> None:
    encoded = keep(np.full((1, 4), 2.5, dtype=np.float32), precision, 2)
    restored = decoded(encoded, 4)
    np.testing.assert_allclose(restored - restored.max(), np.zeros((1, 4)), atol=1e-7)
    np.testing.assert_allclose(encoded.confidence_B, [0.25], rtol=1e-6)


@pytest.mark.parametrize("precision", list(Precision))
def test_values_have_the_columns_and_types_that_are_promised(precision: Precision) -> None:
    encoded = keep(np.zeros((3, 5), dtype=np.float32), precision, 2)
    columns = value_columns(precision, 5, 2)
    assert encoded.values.keys() == columns.keys()
    for name, column in columns.items():
        assert encoded.values[name].dtype == column.dtype
        assert encoded.values[name].shape == ((3,) if column.width is None else (3, column.width))


@pytest.mark.parametrize("top_k", [None, 0, 4, 5])
def test_a_top_k_that_leaves_no_residual_is_refused(top_k: int | None) -> None:
    logits = np.zeros((1, 4), dtype=np.float32)
    with pytest.raises(
        CacheError, match=r"cache.top_k is .*, but the data set has 4 classes; allowed: 1 to 3"
    ):
        encode_logits(logits, ids_of(logits), Precision.TOPK, where="here", top_k=top_k)


@settings(deadline=None, max_examples=30)
@given(LOGITS, st.sampled_from(Precision))
def test_scalars_are_those_of_the_logits_as_kept(logits: Float32s, precision: Precision) -> None:
    encoded = keep(logits, precision)
    restored = decode(encoded.values, logits.shape[1])
    exact = restored.astype(np.float64)
    exact = np.exp(exact - exact.max(axis=1, keepdims=True))
    exact /= exact.sum(axis=1, keepdims=True)
    entropy = -(exact * np.log(np.maximum(exact, 1e-300))).sum(axis=1)
    np.testing.assert_allclose(encoded.confidence_B, exact.max(axis=1), rtol=1e-6)
    np.testing.assert_allclose(encoded.entropy_B, entropy, atol=2e-6)
    assert np.array_equal(encoded.top1_B, restored.argmax(axis=1))


def test_confidence_of_known_logits() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]], dtype=np.float32))
    encoded = keep(logits, Precision.FP32)
    np.testing.assert_allclose(encoded.confidence_B, [0.5, 0.6], rtol=1e-6)
    np.testing.assert_allclose(encoded.entropy_B, [1.0397208, 0.9502705], rtol=1e-6)
    assert encoded.top1_B.tolist() == [0, 2]


def test_confidence_follows_the_rounding() -> None:
    logits = np.array([[0.0, -1.0003]], dtype=np.float32)  # fp16 has a step of 2^-10 there: -1 is kept
    encoded = keep(logits, Precision.FP16)
    assert encoded.confidence_B[0] == np.float32(1) / (np.float32(1) + np.exp(np.float32(-1)))


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_counted_and_named(precision: Precision, bad: float) -> None:
    logits = np.zeros((8, 3), dtype=np.float32)
    logits[1:8, 2] = bad
    with pytest.raises(
        CacheError, match=r"here: logits are not finite in 7 of 8 rows \(sample ids 11, 12, 13, 14, 15, …\)"
    ):
        keep(logits, precision)


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8, Precision.TOPK])
def test_saturated_logits_are_refused_and_kept_in_fp32(precision: Precision) -> None:
    logits = np.array([[0.0, 1.0], [-70_000.0, 0.0]], dtype=np.float32)
    message = rf"65504.* too far for {precision.value} in 1 of 2 rows \(sample ids 11\).*precision to fp32"
    with pytest.raises(CacheError, match=message):
        keep(logits, precision)
    assert np.array_equal(keep(logits, Precision.FP32).values["logits"], logits)


def test_a_large_offset_costs_no_precision() -> None:
    logits = np.array([[1e5, 1e5 - 2.0]], dtype=np.float32)
    assert keep(logits, Precision.FP16).values["logits"].tolist() == [[0, -2]]
