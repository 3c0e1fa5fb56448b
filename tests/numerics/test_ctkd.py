"""A learned temperature: the curriculum, closed forms of its gradient, its sign, and the student's own."""

from __future__ import annotations

import math
from typing import Any

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
from trainables.config.objectives import CtkdConfig
from trainables.objectives import CtkdObjective
from trainables.objectives.ctkd import reversal_strength
from trainables.objectives.terms.divergences import dkd_parts_B, kd_divergence_B
from trainables.signals import Setting

# B = samples in the batch, C = classes
SETTING = Setting(n_samples=64, n_classes=4, epochs=20)
ALONE: dict[str, Any] = {"ce_weight": 0.0, "kd_weight": 1.0}


def ctkd(theta: float = 1.0, **fields: Any) -> CtkdObjective:
    objective = CtkdObjective(CtkdConfig(**fields), SETTING).double()
    torch.nn.init.constant_(objective.theta, theta)
    return objective


def theta_gradient(objective: CtkdObjective, epoch: int) -> float:
    total = objective(one_view(grad=True, epoch=epoch)).total
    return float(torch.autograd.grad(total, objective.theta)[0])


@pytest.mark.parametrize(
    ("epoch", "strength"), [(1, 0.024472), (2, 0.095492), (5, 0.5), (10, 1.0), (11, 1.0), (500, 1.0)]
)
def test_the_curriculum_has_the_worked_values(epoch: int, strength: float) -> None:
    assert reversal_strength(CtkdConfig(), epoch) == pytest.approx(strength, abs=DIGITS)
    assert reversal_strength(CtkdConfig(reversal=2.0), epoch) == pytest.approx(2 * strength, abs=2 * DIGITS)


def test_the_first_temperature_and_its_loss_have_the_worked_values() -> None:
    losses = ctkd(**ALONE)(one_view())
    assert losses.gauges["temperature"].item() == pytest.approx(15.621172, abs=DIGITS)
    assert losses.total.item() == pytest.approx(0.341177, abs=DIGITS)
    assert ctkd(theta=-5.0)(one_view()).gauges["temperature"].item() == pytest.approx(1.133857, abs=DIGITS)


@pytest.mark.parametrize(("theta", "true"), [(1.0, -0.000586526), (-5.0, 0.023145)])
def test_the_gradient_kept_is_the_true_one_reversed(theta: float, true: float) -> None:
    digits = 6e-10 if theta == 1.0 else DIGITS
    assert theta_gradient(ctkd(theta, **ALONE), epoch=10) == pytest.approx(-true, abs=digits)
    assert theta_gradient(ctkd(theta, **ALONE), epoch=5) == pytest.approx(-0.5 * true, abs=digits)


def test_at_half_strength_the_gradient_has_the_worked_digits() -> None:
    assert theta_gradient(ctkd(**ALONE), epoch=5) == pytest.approx(0.000293263, abs=6e-10)


def test_the_gradient_of_the_temperature_has_the_closed_form() -> None:
    student_BC, teacher_BC = logits(WEAK_STUDENT), logits(WEAK_TEACHER)
    temperature = torch.tensor(15.621172, dtype=torch.float64, requires_grad=True)
    value = kd_divergence_B(student_BC, teacher_BC, temperature=temperature).mean()
    (found,) = torch.autograd.grad(value, temperature)
    assert found.item() == pytest.approx(-0.000149158, abs=6e-10)
    t = temperature.detach()
    p_BC, q_BC = (teacher_BC / t).softmax(-1), (student_BC / t).softmax(-1)
    ratio_BC = p_BC.log() - q_BC.log()
    covariance_B = (p_BC * teacher_BC * ratio_BC).sum(-1) - (p_BC * teacher_BC).sum(-1) * (
        p_BC * ratio_BC
    ).sum(-1)
    slope_B = ((p_BC * student_BC).sum(-1) - (q_BC * student_BC).sum(-1) - covariance_B) / t**2
    closed = (2 * t * (p_BC * ratio_BC).sum(-1) + t**2 * slope_B).mean()
    assert found.item() == pytest.approx(closed.item(), rel=1e-6)


@pytest.mark.parametrize("theta", [1.0, -5.0, 0.3])
def test_the_gradient_of_theta_is_that_of_the_temperature_times_its_slope(theta: float) -> None:
    """dT/dtheta = t1 sigmoid(theta) (1 - sigmoid(theta))."""
    share = 1 / (1 + math.exp(-theta))
    temperature = torch.tensor(1 + 20 * share, dtype=torch.float64, requires_grad=True)
    value = kd_divergence_B(logits(WEAK_STUDENT), logits(WEAK_TEACHER), temperature=temperature).mean()
    (slope,) = torch.autograd.grad(value, temperature)
    closed = slope.item() * 20 * share * (1 - share)
    assert theta_gradient(ctkd(theta, **ALONE), epoch=10) == pytest.approx(-closed, rel=1e-9)


def test_the_true_gradient_agrees_with_finite_differences() -> None:
    step = 1e-3  # smaller ones drown in rounding: the slope is 6e-4 of a value of 0.3
    values = [ctkd(1.0 + sign * step, **ALONE)(one_view()).total.item() for sign in (1, -1)]
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(-0.000586526, abs=1e-9)


def test_without_strength_theta_stays_and_the_student_sees_plain_kd() -> None:
    objective, signals = ctkd(reversal=0.0, **ALONE), one_view(grad=True)
    assert theta_gradient(objective, epoch=10) == 0.0
    found_BC = gradient(objective(signals).total, signals)
    plain_BC = logits(WEAK_STUDENT, grad=True)
    temperature = objective(signals).gauges["temperature"].item()
    plain = kd_divergence_B(plain_BC, logits(WEAK_TEACHER), temperature=temperature).mean()
    torch.testing.assert_close(found_BC, torch.autograd.grad(plain, plain_BC)[0], rtol=1e-9, atol=1e-12)


def test_the_students_gradient_does_not_depend_on_the_strength() -> None:
    gradients = []
    for strength in (0.0, 2.0):
        signals = one_view(grad=True, epoch=10)
        gradients.append(gradient(ctkd(reversal=strength)(signals).total, signals))
    assert torch.equal(*gradients)


@pytest.mark.parametrize("base", ["kd", "dkd"])
def test_the_students_gradient_agrees_with_finite_differences(base: str) -> None:
    # With weights of 1 the gradients of DKD and of cross-entropy cancel to less than rounding leaves.
    objective = ctkd(theta=0.3, base=base, ce_weight=0.1, kd_weight=0.9)

    def total(student_BC: Tensor) -> Tensor:
        value: Tensor = objective(signals_of(student_BC, logits(WEAK_TEACHER), LABELS)).total
        return value

    assert agrees_with_differences(total, WEAK_STUDENT)


def test_weight_decay_pulls_the_temperature_to_the_middle_of_its_range() -> None:
    objective = ctkd(reversal=0.0)
    optimizer = torch.optim.SGD(objective.parameters(), lr=1.0, weight_decay=0.5)
    for _ in range(60):
        optimizer.zero_grad()
        objective(one_view()).total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert objective(one_view()).gauges["temperature"].item() == pytest.approx(11.0, abs=DIGITS)


def test_descent_makes_the_divergence_larger() -> None:
    objective = ctkd(theta=-5.0, **ALONE)
    before = objective(one_view(epoch=10)).total
    optimizer = torch.optim.SGD(objective.parameters(), lr=1.0)
    before.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert objective(one_view(epoch=10)).total > before


def test_equal_networks_leave_theta_where_it_is() -> None:
    objective = ctkd(**ALONE)
    signals = signals_of(logits(WEAK_TEACHER), logits(WEAK_TEACHER), LABELS, epoch=10)
    (found,) = torch.autograd.grad(objective(signals).total, objective.theta)
    assert found.item() == 0.0


def test_dkd_is_taken_at_the_learned_temperature() -> None:
    objective = ctkd(theta=0.3, base="dkd", **ALONE)
    losses = objective(one_view())
    temperature = losses.gauges["temperature"].item()
    tckd_B, nckd_B = dkd_parts_B(
        logits(WEAK_STUDENT), logits(WEAK_TEACHER), torch.tensor(LABELS), temperature=temperature
    )
    assert losses.terms["kd"].item() == pytest.approx((tckd_B + 2 * nckd_B).mean().item(), rel=1e-9)
    assert theta_gradient(objective, epoch=10) != 0.0
