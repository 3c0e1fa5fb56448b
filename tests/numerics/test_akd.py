"""Adversarial distillation: worked numbers of the mixture, and the attack where the worst case is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
from trainables.config.objectives import AkdConfig, Attack
from trainables.data import ImageSplit
from trainables.evaluation.attacks import Attacker, accuracy_under_attack, attack_target
from trainables.objectives import AkdObjective
from trainables.objectives.akd import soft_cross_entropy

# B = samples in the batch, C = classes or channels, H, W = height and width
CPU = torch.device("cpu")
ONE_STEP = Attack(epsilon=0.1, step=0.1, steps=1, random_start=False)


def linear() -> nn.Module:
    """Two classes of two pixels, W = [[1, -2], [0, 0.5]]."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    network[1].weight = nn.Parameter(torch.tensor([[1.0, -2.0], [0.0, 0.5]]))
    return network


def pixels(*values: float) -> Tensor:
    return torch.tensor(values).reshape(1, 1, 1, -1)


def attacker(attack: Attack, *, mean: float = 0.0, std: float = 1.0) -> Attacker:
    return Attacker(attack, mean=(mean,), std=(std,), device=CPU)


def label(index: int) -> Tensor:
    return F.one_hot(torch.tensor([index]), 2).float()


def loss_of(images: Tensor) -> float:
    return F.cross_entropy(linear()(images), torch.tensor([0])).item()


def test_the_mixture_has_the_worked_value_and_is_divergence_and_entropy() -> None:
    losses = AkdObjective(AkdConfig())(one_view())
    assert losses.total.item() == pytest.approx(0.941459, abs=DIGITS)
    student_BC, teacher_BC = logits(WEAK_STUDENT), logits(WEAK_TEACHER)
    p_BC = teacher_BC.softmax(dim=-1)
    entropy = -(p_BC * p_BC.log()).sum(dim=-1).mean()
    assert entropy.item() == pytest.approx(0.852427, abs=DIGITS)
    divergence = (p_BC * (p_BC.log() - student_BC.log_softmax(dim=-1))).sum(dim=-1).mean()
    soft = soft_cross_entropy(student_BC, teacher_BC)
    torch.testing.assert_close(soft, divergence + entropy, rtol=1e-12, atol=0)


def test_no_share_of_the_teacher_is_the_cross_entropy() -> None:
    losses = AkdObjective(AkdConfig(teacher_share=0.0))(one_view())
    assert losses.total.item() == pytest.approx(0.826856, abs=DIGITS)


def test_the_gradient_has_the_worked_digits_and_the_closed_form() -> None:
    signals = one_view(grad=True)
    found_BC = gradient(AkdObjective(AkdConfig())(signals).total, signals)
    assert found_BC[0].tolist() == pytest.approx([-0.230211, 0.109888, 0.040425, 0.079898], abs=DIGITS)
    target_BC = 0.5 * F.one_hot(torch.tensor(LABELS), 4) + 0.5 * logits(WEAK_TEACHER).softmax(dim=-1)
    closed_BC = (logits(WEAK_STUDENT).softmax(dim=-1) - target_BC) / 2
    torch.testing.assert_close(found_BC, closed_BC, rtol=1e-12, atol=1e-15)
    objective = AkdObjective(AkdConfig())
    assert agrees_with_differences(
        lambda rows_BC: objective(signals_of(rows_BC, logits(WEAK_TEACHER), LABELS)).total, WEAK_STUDENT
    )


def test_one_step_reaches_the_worst_case_of_a_linear_network() -> None:
    clean = pixels(0.3, 0.4)
    shown = attacker(ONE_STEP).attacked(linear(), clean, label(0))
    assert shown.flatten().tolist() == pytest.approx([0.2, 0.5], abs=1e-6)
    margins = [(network := linear()(images))[0, 0].item() - network[0, 1].item() for images in (clean, shown)]
    assert margins == pytest.approx([-0.7, -1.05], abs=1e-6)
    assert (loss_of(clean), loss_of(shown)) == pytest.approx((1.103186, 1.350058), abs=DIGITS)


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("steps", [1, 7])
def test_an_attack_stays_in_its_ball_and_in_the_pixels_range(random_start: bool, steps: int) -> None:
    torch.manual_seed(0)
    attack = Attack(epsilon=0.1, step=0.04, steps=steps, random_start=random_start)
    clean = torch.rand(32, 1, 1, 2)
    labels = torch.randint(0, 2, (32,))
    shown = attacker(attack).attacked(linear(), clean, F.one_hot(labels, 2).float())
    assert (shown - clean).abs().max() <= 0.1 + 1e-6
    assert shown.min() >= 0
    assert shown.max() <= 1
    before, after = (F.cross_entropy(linear()(images), labels, reduction="none") for images in (clean, shown))
    assert (after > before if not random_start else after.mean() > before.mean()).all()


def test_the_ball_is_one_of_pixels_and_not_of_normalised_values() -> None:
    clean = pixels(0.3, 0.4)
    shown = attacker(ONE_STEP, mean=0.5, std=0.25).attacked(linear(), (clean - 0.5) / 0.25, label(0))
    assert (shown * 0.25 + 0.5).flatten().tolist() == pytest.approx([0.2, 0.5], abs=1e-6)


def test_no_ball_leaves_the_images_as_they_are() -> None:
    clean = torch.rand(4, 1, 1, 2)
    attack = replace(ONE_STEP, epsilon=0.0, random_start=True)
    assert torch.equal(attacker(attack).attacked(linear(), clean, label(0)), clean)


def test_an_attack_leaves_no_gradient_behind_and_images_carry_none() -> None:
    network = linear()
    shown = attacker(ONE_STEP).attacked(network, pixels(0.3, 0.4), label(0))
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not shown.requires_grad


def test_a_mixture_is_led_away_from_in_the_share_of_the_teacher() -> None:
    teacher_BC, labels_B = logits(WEAK_TEACHER), torch.tensor(LABELS)
    config = AkdConfig(attack_target="mixture", teacher_share=0.25)
    options: dict[str, Any] = {"share": config.attack.teacher_share, "n_classes": 4}
    mixed_BC = attack_target(labels_B, teacher_BC, **options)
    expected_BC = 0.75 * F.one_hot(labels_B, 4) + 0.25 * teacher_BC.softmax(dim=-1)
    torch.testing.assert_close(mixed_BC, expected_BC)
    assert AkdConfig().attack.teacher_share == 0.0
    plain_BC = attack_target(labels_B, teacher_BC, share=0.0, n_classes=4)
    assert plain_BC.tolist() == F.one_hot(labels_B, 4).tolist()


def test_sizes_are_given_in_levels() -> None:
    attack = AkdConfig().attack
    assert (attack.epsilon, attack.step, attack.steps) == (8 / 255, 2 / 255, 10)


def test_accuracy_under_attack_counts_what_no_small_change_turns() -> None:
    """Margins of class 0 are x0 - 2.5 x1: 0.25 and 0.4, of which an attack of 0.1 takes 0.35; and -1."""
    images = torch.tensor([[0.25, 0.0], [1.0, 0.3], [0.9, 0.2], [0.0, 0.4]]) * 255
    split = ImageSplit(
        images.round().to(torch.uint8).reshape(4, 1, 1, 2), torch.tensor([0, 0, 0, 0]), torch.arange(4)
    )
    figures = [
        accuracy_under_attack(
            linear(), split, replace(ONE_STEP, epsilon=epsilon), mean=(0.0,), std=(1.0,), batch_size=3
        )
        for epsilon in (0.0, 0.1)
    ]
    assert figures == [0.75, 0.25]
