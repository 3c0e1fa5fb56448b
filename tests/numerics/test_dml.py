"""Deep mutual learning: worked numbers, whose gradient reaches whom, several peers, and its options."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.numerics.peers import together, two_networks
from tests.numerics.reference import (
    DIGITS,
    LABELS,
    STRONG_STUDENT,
    WEAK_STUDENT,
    agrees_with_differences,
    gradient,
    logits,
    signals_of,
)
from trainables.config import KdConfig
from trainables.config.objectives import DmlConfig, PeersTarget, PeersWeight
from trainables.objectives import DmlObjective, KdObjective
from trainables.signals import Losses, Signals

# B = samples in the batch, C = classes

THIRD = [[-0.2, 0.4, 0.1, 0.9], [0.5, 0.5, -0.5, 0.0]]


def losses_of(signals: Signals, **options: Any) -> Losses:
    return DmlObjective(DmlConfig(**options))(signals)


def soft(rows: list[list[float]]) -> Tensor:
    return logits(rows).softmax(dim=-1)


def kl(target_BC: Tensor, own_BC: Tensor) -> float:
    """Mean over rows of KL(target ‖ own), of probabilities."""
    return float((target_BC * (target_BC.log() - own_BC.log())).sum(dim=-1).mean())


def test_the_terms_have_the_worked_values() -> None:
    terms = losses_of(two_networks()).terms
    assert terms["kl"].item() == pytest.approx(0.040763, abs=DIGITS)
    assert terms["peer1_kl"].item() == pytest.approx(0.041537, abs=DIGITS)
    assert (terms["ce"] + terms["kl"]).item() == pytest.approx(0.867619, abs=DIGITS)
    assert (terms["peer1_ce"] + terms["peer1_kl"]).item() == pytest.approx(1.216362, abs=DIGITS)


def test_the_total_is_the_sum_of_both_networks_losses() -> None:
    total = losses_of(two_networks()).total.item()
    assert total == pytest.approx(0.867619 + 1.216362, abs=2 * DIGITS)
    halved = losses_of(two_networks(), kl_weight=0.5).total.item()
    assert halved == pytest.approx(total - 0.5 * (0.040763 + 0.041537), abs=2 * DIGITS)


def test_the_gradient_has_the_worked_values_and_the_closed_form() -> None:
    signals = two_networks()
    found_BC = gradient(losses_of(signals).total, signals)
    expected = torch.tensor([-0.203122, 0.101193, 0.030463, 0.071466], dtype=torch.float64)
    torch.testing.assert_close(found_BC[0], expected, atol=DIGITS, rtol=0)
    own_BC, other_BC = soft(WEAK_STUDENT), soft(STRONG_STUDENT)
    one_hot_BC = torch.eye(4, dtype=torch.float64)[torch.tensor(LABELS)]
    torch.testing.assert_close(found_BC, ((own_BC - one_hot_BC) + (own_BC - other_BC)) / 2)


def test_equal_networks_have_nothing_to_say_to_each_other() -> None:
    signals = two_networks(WEAK_STUDENT, WEAK_STUDENT)
    losses = losses_of(signals)
    assert losses.terms["kl"].item() == pytest.approx(0.0, abs=1e-15)
    expected_BC = gradient(losses_of(signals, kl_weight=0.0).total, signals)
    torch.testing.assert_close(gradient(losses.total, signals), expected_BC)


def test_one_network_learns_as_from_a_frozen_teacher() -> None:
    """KD at temperature 1 and weight 1."""
    signals = two_networks()
    kd = signals_of(logits(WEAK_STUDENT, grad=True), logits(STRONG_STUDENT), LABELS)
    kd_losses = KdObjective(KdConfig(temperature=1.0, ce_weight=1.0, kd_weight=1.0))(kd)
    losses = losses_of(signals)
    assert (losses.terms["ce"] + losses.terms["kl"]).item() == pytest.approx(kd_losses.total.item())
    torch.testing.assert_close(gradient(losses.total, signals), gradient(kd_losses.total, kd))


def test_a_networks_loss_moves_that_network_alone() -> None:
    """Were the others' answers not held, the gradient of the second loss would reach the first network."""

    def loss_of_first(first_BC: Tensor) -> Tensor:
        total = losses_of(together(first_BC, logits(STRONG_STUDENT), labels=LABELS)).total
        alone = losses_of(together(first_BC.detach(), logits(STRONG_STUDENT), labels=LABELS)).total
        return total - alone

    first_BC = logits(WEAK_STUDENT, grad=True)
    (own_BC,) = torch.autograd.grad(loss_of_first(first_BC), first_BC)
    signals = two_networks()
    torch.testing.assert_close(own_BC, gradient(losses_of(signals).total, signals))
    # The differences of the student's own loss, with the other network held still.
    other_BC = soft(STRONG_STUDENT)

    def own_loss(first_BC: Tensor) -> Tensor:
        log_BC = first_BC.log_softmax(dim=-1)
        ce = -log_BC[torch.arange(2), torch.tensor(LABELS)].mean()
        return ce + (other_BC * (other_BC.log() - log_BC)).sum(dim=-1).mean()

    assert agrees_with_differences(own_loss, WEAK_STUDENT)
    torch.testing.assert_close(torch.autograd.grad(own_loss(first_BC), first_BC)[0], own_BC)


@pytest.mark.parametrize("over_peers", PeersWeight)
def test_of_three_networks_each_hears_both_others(over_peers: PeersWeight) -> None:
    rows = (WEAK_STUDENT, STRONG_STUDENT, THIRD)
    signals = together(*(logits(own, grad=True) for own in rows), labels=LABELS)
    terms = losses_of(signals, peers=3, over_peers=over_peers).terms
    for number, name in enumerate(("kl", "peer1_kl", "peer2_kl")):
        others = [kl(soft(rows[n]), soft(rows[number])) for n in range(3) if n != number]
        shared = 2 if over_peers is PeersWeight.MEAN else 1
        assert terms[name].item() == pytest.approx(sum(others) / shared)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_others_may_speak_with_one_voice(temperature: float) -> None:
    rows = (WEAK_STUDENT, STRONG_STUDENT, THIRD)
    signals = together(*(logits(own, grad=True) for own in rows), labels=LABELS)
    losses = losses_of(signals, peers=3, target=PeersTarget.MEAN, temperature=temperature)
    softened = [(logits(own) / temperature).softmax(dim=-1) for own in rows]
    expected = temperature**2 * kl((softened[1] + softened[2]) / 2, softened[0])
    assert losses.terms["kl"].item() == pytest.approx(expected)


def test_of_two_networks_one_voice_is_the_others() -> None:
    each, one = (losses_of(two_networks(), target=target).total for target in PeersTarget)
    assert each.item() == pytest.approx(one.item(), abs=1e-14)


def test_networks_alone_are_refused() -> None:
    with pytest.raises(ValueError, match="hold no peers; train one network or more beside the student"):
        losses_of(together(logits(WEAK_STUDENT), labels=LABELS))


def test_the_order_of_networks_and_classes_does_not_matter() -> None:
    forth, back = two_networks(), two_networks(STRONG_STUDENT, WEAK_STUDENT)
    assert losses_of(forth).total.item() == pytest.approx(losses_of(back).total.item())
    turned = two_networks([row[::-1] for row in WEAK_STUDENT], [row[::-1] for row in STRONG_STUDENT])
    mirrored = Signals(turned.student, {}, torch.tensor([3, 1]), 1, peers=turned.peers)
    assert losses_of(mirrored).total.item() == pytest.approx(losses_of(forth).total.item())
