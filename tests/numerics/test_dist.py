"""Correlation with the teacher: worked numbers, bounds, invariances and the edges of a batch."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.numerics.reference import (
    DIGITS,
    THREE_LABELS,
    THREE_STUDENT,
    THREE_TEACHER,
    WEAK_STUDENT,
    WEAK_TEACHER,
    agrees_with_differences,
    logits,
    one_view,
    signals_of,
    three_rows,
)
from trainables.config import DistConfig
from trainables.objectives import DistObjective
from trainables.objectives.terms.correlations import class_distance, sample_distance_B
from trainables.signals import Signals

# B = samples in the batch, C = classes


def parts(signals: Signals, temperature: float) -> tuple[float, float]:
    terms = DistObjective(DistConfig(temperature=temperature))(signals).terms
    return terms["inter"].item(), terms["intra"].item()


def test_the_parts_have_the_worked_values() -> None:
    assert parts(three_rows(), 1.0) == pytest.approx((0.059965, 0.065777), abs=DIGITS)
    assert parts(three_rows(), 4.0) == pytest.approx((1.708292, 0.750070), abs=DIGITS)
    assert sum(parts(three_rows(), 1.0)) == pytest.approx(0.125742, abs=DIGITS)
    assert parts(one_view(), 1.0) == pytest.approx((0.067051, 0.500000), abs=DIGITS)


def test_the_objective_adds_both_parts_twice_to_the_cross_entropy() -> None:
    losses = DistObjective(DistConfig(temperature=1.0))(three_rows())
    assert losses.total.item() - losses.terms["ce"].item() == pytest.approx(0.251484, abs=DIGITS)
    assert losses.terms["ce"].item() == pytest.approx(0.831462, abs=DIGITS)


def test_equal_networks_leave_what_the_denominator_adds() -> None:
    teacher_BC = logits(THREE_TEACHER)
    signals = signals_of(teacher_BC, teacher_BC, THREE_LABELS)
    assert sum(parts(signals, 1.0)) == pytest.approx(4e-7, rel=0.01)
    assert parts(signals, 4.0) == pytest.approx((1.24e-5, 2.41e-5), rel=0.01)


@pytest.mark.parametrize("scale", [0.0, 1e-4, 0.01, 1.0, 50.0])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_what_equal_networks_leave_depends_on_how_far_probabilities_vary(
    scale: float, temperature: float
) -> None:
    """T² · 1e-8 / (|a|² + 1e-8), from next to nothing to T² where nothing varies."""
    teacher_BC = logits(THREE_TEACHER) * scale
    soft_BC = (teacher_BC / temperature).softmax(dim=-1)
    found = sample_distance_B(teacher_BC, teacher_BC, temperature=temperature)
    torch.testing.assert_close(found, left_over(soft_BC, -1) * temperature**2, rtol=1e-5, atol=1e-14)
    by_class = class_distance(teacher_BC, teacher_BC, temperature=temperature)
    expected = left_over(soft_BC, 0).mean() * temperature**2
    torch.testing.assert_close(by_class, expected, rtol=1e-5, atol=1e-14)


def left_over(values: Tensor, dim: int) -> Tensor:
    return 1e-8 / ((values - values.mean(dim, keepdim=True)).square().sum(dim) + 1e-8)


def test_a_sure_row_leaves_next_to_nothing_and_an_undecided_one_all() -> None:
    rows_BC = logits([[200.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    sure, undecided = sample_distance_B(rows_BC, rows_BC, temperature=2.0).tolist()
    assert (sure, undecided) == (pytest.approx(4 * 1e-8 / 0.75, rel=1e-4), 4.0)


def test_two_samples_correlate_fully_one_way_or_the_other() -> None:
    student_BC, teacher_BC = logits(WEAK_STUDENT), logits(WEAK_TEACHER)
    slopes_C = (student_BC.softmax(-1)[0] - student_BC.softmax(-1)[1]) * (
        teacher_BC.softmax(-1)[0] - teacher_BC.softmax(-1)[1]
    )
    assert slopes_C.sign().tolist() == [1.0, -1.0, 1.0, 1.0]
    # One of four classes is 2 away, the others 0.
    assert class_distance(student_BC, teacher_BC, temperature=1.0).item() == pytest.approx(0.5, abs=DIGITS)


def test_one_sample_has_no_correlation_over_the_batch() -> None:
    student_BC = logits(WEAK_STUDENT[:1], grad=True)
    value = class_distance(student_BC, logits(WEAK_TEACHER[:1]), temperature=1.0)
    assert value.item() == 1.0
    (gradient_BC,) = torch.autograd.grad(value, student_BC)
    assert torch.equal(gradient_BC, torch.zeros_like(gradient_BC))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_gradient_agrees_with_finite_differences(temperature: float) -> None:
    objective, teacher_BC = DistObjective(DistConfig(temperature=temperature)), logits(THREE_TEACHER)

    def total(student_BC: Tensor) -> Tensor:
        return objective(signals_of(student_BC, teacher_BC, THREE_LABELS)).total

    assert agrees_with_differences(total, THREE_STUDENT)


@settings(max_examples=30, deadline=None)
@given(shifts=st.lists(st.floats(-50, 50), min_size=6, max_size=6), order=st.permutations(range(4)))
def test_row_constants_and_a_joint_permutation_of_classes_change_nothing(
    shifts: list[float], order: list[int]
) -> None:
    shift_2B1 = torch.tensor(shifts, dtype=torch.float64).reshape(2, 3, 1)
    moved = signals_of(
        (logits(THREE_STUDENT) + shift_2B1[0])[:, order],
        (logits(THREE_TEACHER) + shift_2B1[1])[:, order],
        [order.index(label) for label in THREE_LABELS],
    )
    assert parts(moved, 2.0) == pytest.approx(parts(three_rows(), 2.0), rel=1e-9)


def test_a_positive_affine_map_of_probabilities_changes_nothing_and_a_scale_of_logits_does() -> None:
    student_BC, teacher_BC = logits(THREE_STUDENT).softmax(dim=-1), logits(THREE_TEACHER)
    mapped_BC = (0.5 * student_BC + 0.5 / 4).log()  # sums to 1 still, so it is its own softmax
    value_B = sample_distance_B(student_BC.log(), teacher_BC, temperature=1.0)
    torch.testing.assert_close(
        sample_distance_B(mapped_BC, teacher_BC, temperature=1.0), value_B, rtol=1e-6, atol=1e-7
    )
    scaled_B = sample_distance_B(2 * logits(THREE_STUDENT), teacher_BC, temperature=1.0)
    assert (scaled_B - value_B).abs().max() > 1e-3


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), rows=st.integers(1, 6), classes=st.integers(2, 8))
def test_both_parts_lie_between_zero_and_two(seed: int, rows: int, classes: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    student_BC, teacher_BC = torch.randn(2, rows, classes, generator=draw, dtype=torch.float64) * 3
    for value in parts(signals_of(student_BC, teacher_BC, [0] * rows), 1.0):
        assert -1e-9 <= value <= 2 + 1e-9
        assert math.isfinite(value)


def test_a_mask_leaves_the_class_part_of_the_samples_kept_by_their_fraction() -> None:
    student_BC, teacher_BC = logits(THREE_STUDENT), logits(THREE_TEACHER)
    keep_B = torch.tensor([True, False, True])
    kept = class_distance(student_BC[keep_B], teacher_BC[keep_B], temperature=1.0)
    value = class_distance(student_BC, teacher_BC, temperature=1.0, keep_B=keep_B)
    torch.testing.assert_close(value, kept * 2 / 3)
    nobody = class_distance(student_BC, teacher_BC, temperature=1.0, keep_B=torch.zeros(3, dtype=torch.bool))
    assert nobody.item() == 0.0
