"""Soft targets: worked numbers, closed-form gradients, invariances and an independent implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from tests.numerics.reference import (
    LABELS,
    STRONG_STUDENT,
    THREE_LABELS,
    THREE_STUDENT,
    THREE_TEACHER,
    Rows,
    logits,
    signals_of,
)
from tests.numerics.reference import WEAK_STUDENT as STUDENT
from tests.numerics.reference import WEAK_TEACHER as TEACHER
from trainables.config import CeConfig, KdConfig
from trainables.objectives import CeObjective, KdObjective
from trainables.objectives.terms.divergences import confidence_B, cross_entropy, kd_divergence_B
from trainables.signals import Losses, Signals

# B = samples in the batch, C = classes


def kd_of_fixture(config: KdConfig) -> Losses:
    return KdObjective(config)(signals_of(logits(STUDENT), logits(TEACHER), LABELS))


def kd_by_loops(
    student: NDArray[np.float64], teacher: NDArray[np.float64], temperature: float
) -> list[float]:
    values = []
    for student_row, teacher_row in zip(student.tolist(), teacher.tolist(), strict=True):
        student_sum = math.fsum(math.exp(z / temperature) for z in student_row)
        teacher_sum = math.fsum(math.exp(z / temperature) for z in teacher_row)
        divergence = 0.0
        for s, t in zip(student_row, teacher_row, strict=True):
            q_student = math.exp(s / temperature) / student_sum
            q_teacher = math.exp(t / temperature) / teacher_sum
            divergence += q_teacher * math.log(q_teacher / q_student)
        values.append(temperature * temperature * divergence)
    return values


@pytest.mark.parametrize(
    ("student", "labels", "expected"),
    [
        (STUDENT, LABELS, 0.826856),
        (STRONG_STUDENT, LABELS, 1.174825),
        (THREE_STUDENT, THREE_LABELS, 0.831462),
    ],
)
def test_cross_entropy_has_the_worked_values(student: Rows, labels: list[int], expected: float) -> None:
    assert cross_entropy(logits(student), torch.tensor(labels)).item() == pytest.approx(expected, abs=6e-7)


def test_the_ce_objective_is_the_cross_entropy_alone() -> None:
    student_BC = logits(STUDENT, grad=True)
    losses = CeObjective(CeConfig())(
        Signals(student={"weak": student_BC}, teacher={}, labels_B=torch.tensor(LABELS), epoch=1)
    )
    assert losses.total.item() == pytest.approx(0.826856, abs=6e-7)
    assert set(losses.terms) == {"ce"}
    assert losses.terms["ce"].item() == losses.total.item()
    (gradient_BC,) = torch.autograd.grad(losses.total, student_BC)
    closed_form_BC = (student_BC.softmax(dim=-1) - F.one_hot(torch.tensor(LABELS), 4)) / 2
    torch.testing.assert_close(gradient_BC, closed_form_BC.detach(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("temperature", "rows"),
    [(1.0, [0.325756, 0.081515]), (2.0, [0.518633, 0.101519]), (4.0, [0.570361, 0.108682])],
)
def test_the_divergence_of_each_row_has_the_worked_values(temperature: float, rows: list[float]) -> None:
    value_B = kd_divergence_B(logits(STUDENT), logits(TEACHER), temperature=temperature)
    assert value_B.tolist() == pytest.approx(rows, abs=6e-7)


@pytest.mark.parametrize(
    ("temperature", "mean"),
    [
        (1.0, 0.203635),
        (2.0, 0.310076),
        (4.0, 0.339521),
        (8.0, 0.342535),
        (21.0, 0.340521),
        (1000.0, 0.338032),
    ],
)
def test_the_mean_divergence_has_the_worked_values(temperature: float, mean: float) -> None:
    value_B = kd_divergence_B(logits(STUDENT), logits(TEACHER), temperature=temperature)
    assert value_B.mean().item() == pytest.approx(mean, abs=6e-7)


def test_a_very_high_temperature_gives_half_the_squared_distance_of_centred_logits_over_classes() -> None:
    student_BC, teacher_BC = logits(STUDENT), logits(TEACHER)
    difference_BC = student_BC - teacher_BC
    centred_BC = difference_BC - difference_BC.mean(dim=-1, keepdim=True)
    limit_B = centred_BC.square().sum(dim=-1) / (2 * 4)
    assert limit_B.mean().item() == pytest.approx(0.337969, abs=6e-7)
    value_B = kd_divergence_B(student_BC, teacher_BC, temperature=1e4)
    torch.testing.assert_close(value_B, limit_B, rtol=1e-4, atol=0)


def test_the_divergence_equals_torch_batchmean() -> None:
    student_BC, teacher_BC = logits(STUDENT), logits(TEACHER)
    reference = 16 * F.kl_div(
        F.log_softmax(student_BC / 4, dim=-1), F.softmax(teacher_BC / 4, dim=-1), reduction="batchmean"
    )
    value_B = kd_divergence_B(student_BC, teacher_BC, temperature=4.0)
    torch.testing.assert_close(value_B.mean(), reference, rtol=1e-12, atol=0)


def test_the_default_objective_has_the_worked_value_and_unweighted_terms() -> None:
    losses = kd_of_fixture(KdConfig())
    assert losses.total.item() == pytest.approx(0.388255, abs=6e-7)
    assert {name: term.item() for name, term in losses.terms.items()} == pytest.approx(
        {"ce": 0.826856, "kd": 0.339521}, abs=6e-7
    )


def test_the_gradient_has_the_worked_digits_and_the_closed_form() -> None:
    student_BC, teacher_BC = logits(STUDENT, grad=True), logits(TEACHER)
    loss = kd_divergence_B(student_BC, teacher_BC, temperature=4.0).mean()
    (gradient_BC,) = torch.autograd.grad(loss, student_BC)
    assert gradient_BC[0].tolist() == pytest.approx([-0.220135, 0.031307, 0.024382, 0.164447], abs=6e-7)
    closed_form_BC = (4 / 2) * ((student_BC / 4).softmax(dim=-1) - (teacher_BC / 4).softmax(dim=-1))
    torch.testing.assert_close(gradient_BC, closed_form_BC.detach(), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(
        gradient_BC.sum(dim=-1), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-15
    )


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
@pytest.mark.parametrize(("student", "teacher"), [(STUDENT, TEACHER), (THREE_STUDENT, THREE_TEACHER)])
def test_the_gradient_agrees_with_finite_differences(
    student: Rows, teacher: Rows, temperature: float
) -> None:
    teacher_BC = logits(teacher)

    def mean_divergence(student_BC: Tensor) -> Tensor:
        return kd_divergence_B(student_BC, teacher_BC, temperature=temperature).mean()

    assert torch.autograd.gradcheck(mean_divergence, logits(student, grad=True), rtol=1e-6, atol=1e-9)


def test_equal_student_and_teacher_give_exactly_zero_and_no_gradient() -> None:
    student_BC = logits(TEACHER, grad=True)
    value_B = kd_divergence_B(student_BC, logits(TEACHER), temperature=4.0)
    assert value_B.tolist() == [0.0, 0.0]
    (gradient_BC,) = torch.autograd.grad(value_B.mean(), student_BC)
    torch.testing.assert_close(gradient_BC, torch.zeros_like(gradient_BC), rtol=0, atol=1e-15)


@pytest.mark.parametrize("teacher_shape", [(1, 4), (2, 1), (2, 5)])
def test_a_teacher_of_another_shape_is_refused_rather_than_broadcast(teacher_shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"student logits \(2, 4\) and teacher logits .* differ in shape"):
        kd_divergence_B(logits(STUDENT), torch.zeros(teacher_shape), temperature=4.0)


def test_confidence_is_the_largest_probability_at_temperature_one() -> None:
    teacher_BC = logits(TEACHER, grad=True)
    value_B = confidence_B(teacher_BC)
    assert value_B.tolist() == pytest.approx([0.830953, 0.579259], abs=6e-7)
    assert not value_B.requires_grad
    assert confidence_B(teacher_BC.half()).dtype is torch.float32


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 5),
    classes=st.integers(2, 12),
    temperature=st.floats(0.5, 20),
)
def test_the_divergence_equals_the_formula_in_plain_loops(
    seed: int, rows: int, classes: int, temperature: float
) -> None:
    draw = np.random.default_rng(seed)
    student, teacher = draw.normal(scale=4.0, size=(2, rows, classes))
    value_B = kd_divergence_B(torch.from_numpy(student), torch.from_numpy(teacher), temperature=temperature)
    assert value_B.tolist() == pytest.approx(kd_by_loops(student, teacher, temperature), rel=1e-9, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    student_shifts=st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
    teacher_shifts=st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
)
def test_a_constant_added_to_a_row_changes_nothing(
    student_shifts: tuple[float, float], teacher_shifts: tuple[float, float]
) -> None:
    shifted_BC = logits(STUDENT) + torch.tensor(student_shifts, dtype=torch.float64)[:, None]
    shifted_teacher_BC = logits(TEACHER) + torch.tensor(teacher_shifts, dtype=torch.float64)[:, None]
    torch.testing.assert_close(
        kd_divergence_B(shifted_BC, shifted_teacher_BC, temperature=4.0),
        kd_divergence_B(logits(STUDENT), logits(TEACHER), temperature=4.0),
        rtol=1e-11,
        atol=1e-12,
    )


@settings(max_examples=24, deadline=None)
@given(order=st.permutations(range(4)))
def test_a_joint_permutation_of_classes_changes_nothing(order: list[int]) -> None:
    torch.testing.assert_close(
        kd_divergence_B(logits(STUDENT)[:, order], logits(TEACHER)[:, order], temperature=4.0),
        kd_divergence_B(logits(STUDENT), logits(TEACHER), temperature=4.0),
        rtol=1e-12,
        atol=1e-14,
    )
