"""The reconstruction of AEKT: worked numbers, its likeness to DKD, and the bound of its ratio."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.numerics.reference import (
    DIGITS,
    LABELS,
    WEAK_STUDENT,
    WEAK_TEACHER,
    agrees_with_differences,
    gradient,
    logits,
    one_view,
    signals_of,
)
from trainables.config import DkdConfig
from trainables.config.objectives import AektConfig
from trainables.objectives import AektObjective, DkdObjective
from trainables.objectives.terms.divergences import dkd_parts_B

# B = samples in the batch, C = classes


def test_the_loss_has_the_worked_values() -> None:
    losses = AektObjective(AektConfig(ce_weight=0.0))(one_view())
    assert losses.total.item() == pytest.approx(1.576493, abs=DIGITS)
    assert losses.gauges["ratio"].item() == pytest.approx((1.368571 + 1.125989) / 2, abs=DIGITS)
    for row, ratio in enumerate((1.368571, 1.125989)):
        student_BC, teacher_BC = logits(WEAK_STUDENT[row : row + 1]), logits(WEAK_TEACHER[row : row + 1])
        one = AektObjective(AektConfig())(signals_of(student_BC, teacher_BC, LABELS[row : row + 1]))
        assert one.gauges["ratio"].item() == pytest.approx(ratio, abs=DIGITS)


def test_a_ratio_of_at_most_one_is_dkd_where_the_teacher_is_surer() -> None:
    losses = AektObjective(AektConfig(max_ratio=1.0))(one_view())
    dkd = DkdObjective(DkdConfig(warmup_epochs=1))(one_view())
    assert losses.gauges["ratio"].item() == 1.0
    torch.testing.assert_close(losses.total, dkd.total, rtol=1e-12, atol=0)
    assert (losses.total - losses.terms["ce"]).item() == pytest.approx(1.492829, abs=DIGITS)


def test_equal_networks_pay_nothing_and_pull_nowhere() -> None:
    signals = signals_of(logits(WEAK_TEACHER, grad=True), logits(WEAK_TEACHER), LABELS)
    losses = AektObjective(AektConfig(ce_weight=0.0))(signals)
    assert losses.total.item() == 0.0
    assert gradient(losses.total, signals).abs().max() < 1e-14


def test_the_ratio_is_bounded_also_for_a_student_that_is_sure_and_wrong() -> None:
    student_BC = torch.tensor([[-60.0, 60.0, 0.0, 0.0]] * 2, requires_grad=True)
    losses = AektObjective(AektConfig(temperature=1.0))(
        signals_of(student_BC, torch.tensor(WEAK_TEACHER), [0, 0])
    )
    assert losses.gauges["ratio"].item() == pytest.approx(5.0, rel=1e-6)
    (gradient_BC,) = torch.autograd.grad(losses.total, student_BC)
    assert torch.isfinite(gradient_BC).all()


def test_what_the_rest_is_told_is_rescaled_by_how_little_both_leave_to_it() -> None:
    """dNCKD/ds_i = (p_i(s) - (1 - p_y(s)) / (1 - p_y(t)) p_i(t)) / (1 - p_y(s)), T = 1, i not the label."""
    student_BC, labels_B = logits(WEAK_STUDENT, grad=True), torch.tensor(LABELS)
    _, nckd_B = dkd_parts_B(student_BC, logits(WEAK_TEACHER), labels_B, temperature=1.0)
    (found_BC,) = torch.autograd.grad(nckd_B.sum(), student_BC)
    p_student_BC, p_teacher_BC = student_BC.detach().softmax(-1), logits(WEAK_TEACHER).softmax(-1)
    left_student_B1, left_teacher_B1 = (
        1 - p_BC.gather(-1, labels_B[:, None]) for p_BC in (p_student_BC, p_teacher_BC)
    )
    closed_BC = (p_student_BC - left_student_B1 / left_teacher_B1 * p_teacher_BC) / left_student_B1
    closed_BC = closed_BC.scatter(-1, labels_B[:, None], 0.0)
    torch.testing.assert_close(found_BC, closed_BC, rtol=1e-11, atol=1e-14)


def test_with_a_constant_ratio_the_gradient_agrees_with_finite_differences() -> None:
    objective = AektObjective(AektConfig(max_ratio=1.0))

    def total(student_BC: Tensor) -> Tensor:
        return objective(signals_of(student_BC, logits(WEAK_TEACHER), LABELS)).total

    assert agrees_with_differences(total, WEAK_STUDENT)


def test_of_two_classes_the_target_part_alone_is_left_and_its_ratio_with_it() -> None:
    student_BC, teacher_BC = logits([[0.5, 0.0]], grad=True), logits([[2.0, 0.0]])
    signals = signals_of(student_BC, teacher_BC, [0])
    losses = AektObjective(AektConfig(temperature=1.0, ce_weight=0.0))(signals)
    a, b = 1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(-2.0))
    assert losses.terms["nckd"].item() == 0.0
    assert losses.gauges["ratio"].item() == pytest.approx(b / a, rel=1e-12)
    divergence = b * math.log(b / a) + (1 - b) * math.log((1 - b) / (1 - a))
    assert losses.total.item() == pytest.approx(b / a * divergence, rel=1e-12)
    found_BC = gradient(losses.total, signals)
    assert found_BC[0].tolist() == pytest.approx([b / a * (a - b), -b / a * (a - b)], rel=1e-11)


def test_the_ratio_is_a_constant_of_the_gradient() -> None:
    teacher_BC, signals = logits(WEAK_TEACHER), one_view(grad=True)
    objective = AektObjective(AektConfig(ce_weight=0.0))
    ratio_B = torch.tensor([1.368571, 1.125989]).double()

    def fixed(student_BC: Tensor) -> Tensor:
        tckd_B, nckd_B = dkd_parts_B(student_BC, teacher_BC, signals.labels_B, temperature=4.0)
        return (ratio_B * tckd_B + 8 * nckd_B).mean()

    student_BC = logits(WEAK_STUDENT, grad=True)
    (expected_BC,) = torch.autograd.grad(fixed(student_BC), student_BC)
    found_BC = gradient(objective(signals).total, signals)
    torch.testing.assert_close(found_BC, expected_BC, rtol=1e-5, atol=1e-6)
