"""Standardised logits: worked numbers, invariance to scale, flat rows, and the objectives that take them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.numerics.reference import (
    DIGITS,
    LABELS,
    STRONG_TEACHER,
    WEAK_STUDENT,
    WEAK_TEACHER,
    agrees_with_differences,
    logits,
    one_view,
    signals_of,
    two_views,
)
from trainables.config import CrldConfig, DkdConfig, KdConfig, MlldConfig, ObjectiveBase
from trainables.objectives import KdObjective, build_objective
from trainables.objectives.terms.divergences import kd_divergence_B, standardised
from trainables.signals import Losses

LSKD = KdConfig(standardise=True, temperature=2.0, kd_weight=9.0, ce_weight=0.1)
TAKE_IT: list[ObjectiveBase] = [
    LSKD,
    DkdConfig(standardise=True, temperature=2.0, alpha=9.0, beta=72.0, warmup_epochs=1),
    MlldConfig(standardise=True, temperature=2.0),
    CrldConfig(standardise=True, temperature=2.0, weak_threshold=0.0),
    CrldConfig(standardise=True, base="dkd", weak_threshold=0.0),
    CrldConfig(standardise=True, base="mlld", weak_threshold=0.0),
]
NAMES = [f"{config.name}-{getattr(config, 'base', '')}" for config in TAKE_IT]  # type: ignore[attr-defined]

# B = samples in the batch, C = classes


def divergence_B(student_BC: Tensor, teacher_BC: Tensor) -> Tensor:
    return kd_divergence_B(standardised(student_BC), standardised(teacher_BC), temperature=2.0)


def test_the_divergence_has_the_worked_values() -> None:
    value_B = divergence_B(logits(WEAK_STUDENT), logits(WEAK_TEACHER))
    assert value_B.tolist() == pytest.approx([0.085549, 0.088776], abs=DIGITS)
    assert value_B.mean().item() == pytest.approx(0.087162, abs=DIGITS)
    assert 9 * value_B.mean().item() == pytest.approx(0.784461, abs=DIGITS)


def test_the_deviation_is_the_unbiased_one() -> None:
    torch.testing.assert_close(
        standardised(logits(WEAK_TEACHER)).std(dim=-1), torch.ones(2).double(), rtol=1e-6, atol=0
    )
    biased = [z - z.mean(-1, keepdim=True) for z in (logits(WEAK_STUDENT), logits(WEAK_TEACHER))]
    biased = [z / (1e-7 + z.std(dim=-1, correction=0, keepdim=True)) for z in biased]
    assert kd_divergence_B(*biased, temperature=2.0).mean().item() == pytest.approx(0.107384, abs=DIGITS)


def test_the_objective_has_the_worked_value_and_keeps_raw_logits_for_the_labels() -> None:
    losses = KdObjective(LSKD)(one_view())
    assert losses.total.item() == pytest.approx(0.867146, abs=DIGITS)
    assert losses.terms["ce"].item() == pytest.approx(0.826856, abs=DIGITS)


def test_the_gradient_has_the_worked_digits_and_is_orthogonal_to_shift_and_scale() -> None:
    student_BC = logits(WEAK_STUDENT, grad=True)
    value = divergence_B(student_BC, logits(WEAK_TEACHER)).mean()
    (gradient_BC,) = torch.autograd.grad(value, student_BC)
    assert gradient_BC[0].tolist() == pytest.approx([-0.059433, 0.046766, -0.072100, 0.084767], abs=DIGITS)
    assert gradient_BC.sum(dim=-1).tolist() == pytest.approx([0.0, 0.0], abs=1e-12)
    assert (gradient_BC * student_BC).sum(dim=-1).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


def test_the_gradient_agrees_with_finite_differences() -> None:
    assert agrees_with_differences(
        lambda student_BC: divergence_B(student_BC, logits(WEAK_TEACHER)).mean(), WEAK_STUDENT
    )


@settings(max_examples=30, deadline=None)
@given(scales=st.tuples(st.floats(0.1, 20), st.floats(0.1, 20)), shift=st.floats(-20, 20))
def test_scale_and_shift_of_a_row_change_nothing(scales: tuple[float, float], shift: float) -> None:
    moved_BC = torch.tensor(scales, dtype=torch.float64)[:, None] * logits(WEAK_STUDENT) + shift
    torch.testing.assert_close(
        divergence_B(moved_BC, logits(WEAK_TEACHER)),
        divergence_B(logits(WEAK_STUDENT), logits(WEAK_TEACHER)),
        rtol=1e-5,
        atol=1e-7,
    )


@pytest.mark.parametrize("spread", [0.0, 1e-7, 1e-5])
def test_a_row_of_nearly_equal_logits_gives_a_bounded_gradient(spread: float) -> None:
    student_BC = (60.0 + spread * torch.arange(4.0).repeat(2, 1)).requires_grad_()
    value = divergence_B(student_BC, torch.tensor(WEAK_TEACHER)).mean()
    (gradient_BC,) = torch.autograd.grad(value, student_BC)
    assert math.isfinite(value.item())
    assert gradient_BC.abs().max() < 2e4


def losses_of(config: ObjectiveBase, *, scale: float) -> Losses:
    signals = two_views()
    return build_objective(config)(
        signals_of(
            {bank: scale * value_BC for bank, value_BC in signals.student.items()},
            {"weak": logits(WEAK_TEACHER), "strong": logits(STRONG_TEACHER)},
            LABELS,
        )
    )


@pytest.mark.parametrize("config", TAKE_IT, ids=NAMES)
def test_each_objective_that_takes_it_forgets_the_scale_in_its_divergences(config: ObjectiveBase) -> None:
    divergences = {"kd", "tckd", "nckd", "kd_weak", "kd_strong", "within", "cross"}
    one, other = losses_of(config, scale=1.0).terms, losses_of(config, scale=3.0).terms
    base = getattr(config, "base", "kd")
    found = divergences & set(one)
    assert found
    for term in found:
        # MLLD's batch and class terms, which crld adds into the same term, keep the scale.
        assert (one[term].item() == pytest.approx(other[term].item(), rel=1e-5)) == (base != "mlld")


@pytest.mark.parametrize("config", TAKE_IT, ids=NAMES)
def test_masks_and_relations_are_those_of_the_logits_themselves(config: ObjectiveBase) -> None:
    """Standardised, every teacher is about equally sure."""
    found, plain = (losses_of(one, scale=1.0) for one in (config, config.with_overrides(standardise=False)))
    assert found.gauges == plain.gauges
    for term in {"class", "batch", "ce", "ce_weak", "ce_strong"} & set(found.terms):
        assert found.terms[term].item() == plain.terms[term].item()


@pytest.mark.parametrize("config", TAKE_IT, ids=NAMES)
def test_without_it_the_value_is_another(config: ObjectiveBase) -> None:
    plain = config.with_overrides(standardise=False)
    assert losses_of(plain, scale=1.0).total.item() != losses_of(config, scale=1.0).total.item()
