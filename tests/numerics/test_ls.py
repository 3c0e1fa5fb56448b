"""Label smoothing: its target, its gradient, and its ends."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.numerics.reference import (
    DIGITS,
    LABELS,
    WEAK_STUDENT,
    agrees_with_differences,
    gradient,
    logits,
    one_view,
    signals_of,
)
from trainables.config import LsConfig
from trainables.objectives import LsObjective
from trainables.objectives.terms.divergences import cross_entropy
from trainables.signals import Mixing

# B = samples in the batch, C = classes


def target_BC(smoothing: float) -> Tensor:
    return (1 - smoothing) * F.one_hot(torch.tensor(LABELS), 4).double() + smoothing / 4


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5, 1.0])
def test_the_loss_is_the_cross_entropy_to_the_smoothed_labels(smoothing: float) -> None:
    losses = LsObjective(LsConfig(smoothing=smoothing))(one_view())
    log_BC = logits(WEAK_STUDENT).log_softmax(dim=-1)
    expected = -(target_BC(smoothing) * log_BC).sum(dim=-1).mean()
    torch.testing.assert_close(losses.total, expected, rtol=1e-12, atol=0)


def test_no_smoothing_is_the_cross_entropy() -> None:
    losses = LsObjective(LsConfig(smoothing=0.0))(one_view())
    assert losses.total.item() == pytest.approx(0.826856, abs=DIGITS)


def test_the_gradient_has_the_closed_form_and_agrees_with_finite_differences() -> None:
    signals = one_view(grad=True)
    objective = LsObjective(LsConfig())
    expected_BC = (signals.student["weak"].detach().softmax(dim=-1) - target_BC(0.1)) / 2
    torch.testing.assert_close(
        gradient(objective(signals).total, signals), expected_BC, rtol=1e-12, atol=1e-15
    )
    assert agrees_with_differences(lambda s_BC: objective(signals_of(s_BC, None, LABELS)).total, WEAK_STUDENT)


def test_labels_of_mixed_images_are_smoothed_too() -> None:
    student_BC = logits(WEAK_STUDENT)
    alone = Mixing(torch.tensor([[0, 1], [2, 3]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]).double())
    mixed = cross_entropy(student_BC, torch.tensor(LABELS), alone, smoothing=0.2)
    torch.testing.assert_close(mixed, cross_entropy(student_BC, torch.tensor(LABELS), smoothing=0.2))
