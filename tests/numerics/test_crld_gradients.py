"""Cross-view consistency: closed-form gradients, plain loops, invariances and where it is smallest."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.numerics.crld_views import Views, crld, fixture
from tests.numerics.reference import (
    LABELS,
    STRONG_STUDENT,
    WEAK_STUDENT,
    logits,
)
from trainables.config import CrldConfig, Gate
from trainables.objectives import CrldObjective
from trainables.objectives.terms.divergences import confidence_B
from trainables.signals import Signals, TeacherSignal

# B = samples in the batch, C = classes


def crld_by_loops(views: Views, config: CrldConfig) -> float:
    def probabilities(row: list[float], temperature: float) -> list[float]:
        total = math.fsum(math.exp(z / temperature) for z in row)
        return [math.exp(z / temperature) / total for z in row]

    def divergence(student: list[float], teacher: list[float]) -> float:
        q_student = probabilities(student, config.temperature)
        q_teacher = probabilities(teacher, config.temperature)
        pairs = zip(q_student, q_teacher, strict=True)
        return config.temperature**2 * math.fsum(t * math.log(t / s) for s, t in pairs)

    total = 0.0
    n_rows = len(views.labels_B)
    for i, label in enumerate(views.labels_B.tolist()):
        student_weak, student_strong = views.weak_student_BC[i].tolist(), views.strong_student_BC[i].tolist()
        teacher_weak, teacher_strong = views.weak_teacher_BC[i].tolist(), views.strong_teacher_BC[i].tolist()
        weak_kept = max(probabilities(teacher_weak, 1.0)) >= config.weak_threshold
        strong_kept = max(probabilities(teacher_strong, 1.0)) >= config.strong_threshold
        released = config.gate is Gate.RELEASED
        for student in (student_weak, student_strong):
            total -= config.ce_weight * math.log(probabilities(student, 1.0)[label])
        if weak_kept:
            total += config.within_weight * divergence(student_weak, teacher_weak)
        if weak_kept if released else strong_kept:
            total += config.within_weight * divergence(student_strong, teacher_strong)
        if strong_kept if released else weak_kept:
            total += config.cross_weight * divergence(student_strong, teacher_weak)
        if strong_kept:
            total += config.cross_weight * divergence(student_weak, teacher_strong)
    return total / n_rows


def test_the_gradient_has_the_worked_digits() -> None:
    views = fixture(grad=True)
    total = crld(views, 0.8, 0.3).total
    weak_BC, strong_BC = torch.autograd.grad(total, [views.weak_student_BC, views.strong_student_BC])
    assert weak_BC[0].tolist() == pytest.approx([-0.713984, 0.192821, 0.077003, 0.444160], abs=6e-7)
    assert strong_BC[0].tolist() == pytest.approx([-0.608296, 0.217264, 0.065424, 0.325608], abs=6e-7)
    assert weak_BC[1].tolist() == pytest.approx([0.089703, 0.059134, -0.282127, 0.133290], abs=6e-7)
    assert strong_BC[1].tolist() == pytest.approx([0.101877, 0.115014, -0.412057, 0.195166], abs=6e-7)


@pytest.mark.parametrize("gate", list(Gate))
@pytest.mark.parametrize("thresholds", [(0.0, 0.0), (0.8, 0.3), (0.8, 0.4), (0.9, 0.2), (0.5, 0.4)])
def test_the_gradient_has_the_closed_form(gate: Gate, thresholds: tuple[float, float]) -> None:
    views = fixture(grad=True)
    total = crld(views, *thresholds, gate).total
    weak_BC, strong_BC = torch.autograd.grad(total, [views.weak_student_BC, views.strong_student_BC])
    confidences = (confidence_B(views.weak_teacher_BC), confidence_B(views.strong_teacher_BC))
    keep_weak_B1, keep_strong_B1 = (
        (confidence >= threshold).double()[:, None]
        for confidence, threshold in zip(confidences, thresholds, strict=True)
    )
    released = gate is Gate.RELEASED
    one_hot_BC = F.one_hot(views.labels_B, 4)
    q_weak_BC = (views.weak_teacher_BC / 4).softmax(dim=-1)
    q_strong_BC = (views.strong_teacher_BC / 4).softmax(dim=-1)

    def closed_form(student_BC: Tensor, within_BC: Tensor, cross_BC: Tensor) -> Tensor:
        return (student_BC.detach().softmax(dim=-1) - one_hot_BC) / 2 + (4 / 2) * (
            2 * within_BC + 0.5 * cross_BC
        )

    soft_BC = (views.weak_student_BC.detach() / 4).softmax(dim=-1)
    expected_weak_BC = closed_form(
        views.weak_student_BC, keep_weak_B1 * (soft_BC - q_weak_BC), keep_strong_B1 * (soft_BC - q_strong_BC)
    )
    soft_BC = (views.strong_student_BC.detach() / 4).softmax(dim=-1)
    within_gate_B1, cross_gate_B1 = (
        (keep_weak_B1, keep_strong_B1) if released else (keep_strong_B1, keep_weak_B1)
    )
    expected_strong_BC = closed_form(
        views.strong_student_BC,
        within_gate_B1 * (soft_BC - q_strong_BC),
        cross_gate_B1 * (soft_BC - q_weak_BC),
    )
    torch.testing.assert_close(weak_BC, expected_weak_BC, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(strong_BC, expected_strong_BC, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("gate", list(Gate))
@pytest.mark.parametrize("thresholds", [(0.0, 0.0), (0.8, 0.3), (0.9, 0.2)])
def test_the_gradient_agrees_with_finite_differences(gate: Gate, thresholds: tuple[float, float]) -> None:
    fixed = fixture()

    def total(weak_BC: Tensor, strong_BC: Tensor) -> Tensor:
        views = Views(weak_BC, strong_BC, fixed.weak_teacher_BC, fixed.strong_teacher_BC, fixed.labels_B)
        return crld(views, *thresholds, gate).total

    students = (logits(WEAK_STUDENT, grad=True), logits(STRONG_STUDENT, grad=True))
    assert torch.autograd.gradcheck(total, students, rtol=1e-6, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(shifts=st.lists(st.floats(-50, 50), min_size=8, max_size=8), order=st.permutations(range(4)))
def test_row_constants_and_a_joint_permutation_of_classes_change_nothing(
    shifts: list[float], order: list[int]
) -> None:
    views = fixture()
    shift_4B1 = torch.tensor(shifts, dtype=torch.float64).reshape(4, 2, 1)
    moved = Views(
        weak_student_BC=(views.weak_student_BC + shift_4B1[0])[:, order],
        strong_student_BC=(views.strong_student_BC + shift_4B1[1])[:, order],
        weak_teacher_BC=(views.weak_teacher_BC + shift_4B1[2])[:, order],
        strong_teacher_BC=(views.strong_teacher_BC + shift_4B1[3])[:, order],
        labels_B=torch.tensor([order.index(label) for label in LABELS]),
    )
    for gate in Gate:
        before, after = crld(views, 0.8, 0.3, gate), crld(moved, 0.8, 0.3, gate)
        torch.testing.assert_close(after.total, before.total, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(after.terms, before.terms, rtol=1e-11, atol=1e-12)


def random_views(seed: int, rows: int, classes: int) -> Views:
    draw = np.random.default_rng(seed)
    a_BC, b_BC, c_BC, d_BC = torch.from_numpy(draw.normal(scale=2.0, size=(4, rows, classes)))
    return Views(a_BC, b_BC, c_BC, d_BC, torch.from_numpy(draw.integers(classes, size=rows)))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    gate=st.sampled_from(Gate),
    weak=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    strong=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_the_loss_never_rises_with_a_threshold(
    seed: int, gate: Gate, weak: tuple[float, float], strong: tuple[float, float]
) -> None:
    views = random_views(seed, rows=6, classes=5)
    low_weak, high_weak = sorted(weak)
    low_strong, high_strong = sorted(strong)
    loosest = crld(views, low_weak, low_strong, gate).total.item()
    assert crld(views, high_weak, low_strong, gate).total.item() <= loosest + 1e-12
    assert crld(views, low_weak, high_strong, gate).total.item() <= loosest + 1e-12


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 6),
    classes=st.integers(2, 9),
    gate=st.sampled_from(Gate),
    temperature=st.floats(0.5, 10),
    thresholds=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_the_loss_equals_the_formula_in_plain_loops(
    seed: int, rows: int, classes: int, gate: Gate, temperature: float, thresholds: tuple[float, float]
) -> None:
    views = random_views(seed, rows, classes)
    config = CrldConfig(
        temperature=temperature,
        ce_weight=0.7,
        within_weight=1.3,
        cross_weight=0.4,
        weak_threshold=thresholds[0],
        strong_threshold=thresholds[1],
        gate=gate,
    )
    # The loops gate in float64, so the signals do as well: a draw next to the threshold must not flip.
    signals = views.signals()
    exact = Signals(
        student=signals.student,
        teacher={
            name: TeacherSignal(signal.logits_BC, confidence_B(signal.logits_BC))
            for name, signal in signals.teacher.items()
        },
        labels_B=signals.labels_B,
        epoch=1,
    )
    expected = crld_by_loops(views, config)
    assert CrldObjective(config)(exact).total.item() == pytest.approx(expected, rel=1e-9, abs=1e-11)


@pytest.mark.parametrize(("within_weight", "cross_weight"), [(2.0, 0.5), (0.3, 3.0), (1.0, 0.0), (0.0, 1.0)])
def test_a_student_that_answers_both_views_alike_is_best_at_the_mean_of_the_teachers(
    within_weight: float, cross_weight: float
) -> None:
    config = CrldConfig(
        ce_weight=0.0,
        within_weight=within_weight,
        cross_weight=cross_weight,
        weak_threshold=0.0,
        strong_threshold=0.0,
    )
    fixed = fixture()
    student_BC = torch.zeros(2, 4, dtype=torch.float64)
    step = 3.0 / (
        within_weight + cross_weight
    )  # the Hessian's largest eigenvalue is at most half the weights
    for _ in range(150):
        student_BC = student_BC.detach().requires_grad_()
        views = Views(student_BC, student_BC, fixed.weak_teacher_BC, fixed.strong_teacher_BC, fixed.labels_B)
        total = CrldObjective(config)(views.signals()).total
        (gradient_BC,) = torch.autograd.grad(total, student_BC)
        student_BC = student_BC - step * gradient_BC
    best_BC = (student_BC.detach() / 4).softmax(dim=-1)
    mean_BC = (
        (fixed.weak_teacher_BC / 4).softmax(dim=-1) + (fixed.strong_teacher_BC / 4).softmax(dim=-1)
    ) / 2
    torch.testing.assert_close(best_BC, mean_BC, rtol=0, atol=1e-7)
