"""Contrast of samples: worked numbers, limits, invariances and the direction of the contrast."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.numerics.reference import (
    DIGITS,
    THREE_LABELS,
    THREE_STUDENT,
    THREE_TEACHER,
    agrees_with_differences,
    logits,
    signals_of,
    three_rows,
)
from trainables.config.objectives import CkdConfig
from trainables.objectives import CkdObjective
from trainables.objectives.ckd import contrast_of

# B = samples in the batch, C = classes


def contrast(student_BC: Tensor, teacher_BC: Tensor, temperature: float = 1.0) -> float:
    return contrast_of(student_BC, teacher_BC, temperature=temperature).item()


def test_the_contrast_has_the_worked_values() -> None:
    student_BC, teacher_BC = logits(THREE_STUDENT), logits(THREE_TEACHER)
    assert contrast(student_BC, teacher_BC) == pytest.approx(0.616388, abs=DIGITS)
    assert contrast(student_BC, teacher_BC, 2.0) == pytest.approx(0.833926, abs=DIGITS)
    assert contrast(teacher_BC, teacher_BC) == pytest.approx(0.661939, abs=DIGITS)


def test_anchors_are_the_teachers() -> None:
    student_BC, teacher_BC = logits(THREE_STUDENT), logits(THREE_TEACHER)
    assert contrast(teacher_BC, student_BC) == pytest.approx(0.617281, abs=DIGITS)


def test_equal_similarities_give_the_log_of_the_batch() -> None:
    same_BC = logits([[1.0, 2.0, 3.0]] * 3)
    assert contrast(same_BC, same_BC) == pytest.approx(math.log(3), abs=1e-12)
    assert math.log(3) == pytest.approx(1.098612, abs=DIGITS)


def test_an_orthonormal_teacher_that_is_met_gives_the_worked_value() -> None:
    eye_BC = torch.eye(3, dtype=torch.float64)
    assert contrast(eye_BC, eye_BC) == pytest.approx(math.log(1 + 2 / math.e), abs=1e-12)
    assert contrast(eye_BC, eye_BC) == pytest.approx(0.551445, abs=DIGITS)


def test_the_objective_adds_the_weighted_contrast_to_the_labels() -> None:
    losses = CkdObjective(CkdConfig(contrast_weight=10.0))(three_rows())
    assert losses.total.item() == pytest.approx(6.995340, abs=DIGITS)


def test_a_positive_scale_of_a_row_changes_nothing_and_a_shift_does() -> None:
    student_BC, teacher_BC = logits(THREE_STUDENT), logits(THREE_TEACHER)
    scale_B1 = torch.tensor([[0.3], [5.0], [40.0]]).double()
    assert contrast(scale_B1 * student_BC, teacher_BC) == pytest.approx(0.616388, abs=DIGITS)
    assert contrast(student_BC + 1, teacher_BC) == pytest.approx(0.886127, abs=DIGITS)


def test_the_gradient_is_orthogonal_to_each_row_and_agrees_with_finite_differences() -> None:
    student_BC, teacher_BC = logits(THREE_STUDENT, grad=True), logits(THREE_TEACHER)
    (gradient_BC,) = torch.autograd.grad(contrast_of(student_BC, teacher_BC, temperature=1.0), student_BC)
    assert (gradient_BC * student_BC).sum(dim=-1).tolist() == pytest.approx([0.0] * 3, abs=1e-12)
    assert gradient_BC.abs().max() > 1e-3
    objective = CkdObjective(CkdConfig())
    assert agrees_with_differences(
        lambda rows_BC: objective(signals_of(rows_BC, teacher_BC, THREE_LABELS)).total, THREE_STUDENT
    )


def test_rows_of_zeros_give_a_bounded_gradient() -> None:
    student_BC = torch.zeros(3, 4, requires_grad=True)
    value = contrast_of(student_BC, torch.tensor(THREE_TEACHER), temperature=1.0)
    (gradient_BC,) = torch.autograd.grad(value, student_BC)
    assert value.item() == pytest.approx(math.log(3))
    assert gradient_BC.abs().max() < 1e4


def test_one_sample_has_nothing_to_be_told_from() -> None:
    assert contrast(logits(THREE_STUDENT[:1]), logits(THREE_TEACHER[:1])) == 0.0
