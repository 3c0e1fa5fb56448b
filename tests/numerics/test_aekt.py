"""The reconstruction of AEKT: worked numbers, its likeness to DKD, and the bound of its ratio."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.numerics.reference import (
    DIGITS,
    LABELS,
    WEAK_STUDENT,
    WEAK_TEACHER,
    gradient,
    logits,
    one_view,
    signals_of,
)
from trainables.config import DkdConfig
from trainables.config.objectives import AektConfig
from trainables.objectives import AektObjective, DkdObjective
from trainables.objectives.divergences import dkd_parts_B

# B = samples in the batch, C = classes


def test_the_loss_has_the_worked_values() -> None:
    losses = AektObjective(AektConfig(ce_weight=0.0))(one_view())
    assert losses.total.item() == pytest.approx(1.576493, abs=1e-6)
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
    assert (losses.total - losses.terms["ce"]).item() == pytest.approx(1.492829, abs=1e-6)


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
