"""Regression of the teacher's direction: worked numbers, invariances, the head, and degenerate batches."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.numerics.reference import DIGITS
from tests.numerics.representation.embedding_signals import (
    is_finite,
    numbers,
    random,
    setting_for,
    signals_of,
)
from trainables.config.objectives import SimregConfig
from trainables.config.training import TrainingConfig
from trainables.objectives import SimregObjective
from trainables.objectives.representation.simreg import regression_head
from trainables.objectives.representation.terms.distances import direction_distance_B
from trainables.signals import Labelling

# B = samples in the batch, D = numbers in an embedding
GIVEN = [[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]
TAUGHT = [[1.0, 1.0], [0.0, 5.0], [-1.0, -1.0]]


def simreg(given: Tensor, taught_BD: Tensor, **fields: Any) -> SimregObjective:
    torch.manual_seed(0)
    objective = SimregObjective(SimregConfig(**fields), setting_for(given, taught_BD))
    return objective.to(given.dtype)


def turned(angle: float) -> Tensor:
    return numbers([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def test_the_distance_of_each_sample_and_their_mean_have_the_worked_values() -> None:
    distance_B = direction_distance_B(numbers(GIVEN), numbers(TAUGHT))
    assert distance_B.tolist() == pytest.approx([0.585786, 0.0, 4.0], abs=DIGITS)
    assert distance_B.mean().item() == pytest.approx(1.528595, abs=DIGITS)
    assert distance_B.mean().item() / 2 == pytest.approx(0.764298, abs=DIGITS)  # elementwise mean of two


def test_it_does_not_hear_of_lengths_and_lies_between_0_and_4() -> None:
    given_BD, taught_BD = random(1, 50, 6), random(2, 50, 6)
    distance_B = direction_distance_B(given_BD, taught_BD)
    scale_B1 = random(3, 50, 1).exp()
    torch.testing.assert_close(direction_distance_B(scale_B1 * given_BD, taught_BD), distance_B)
    torch.testing.assert_close(direction_distance_B(given_BD, scale_B1 * taught_BD), distance_B)
    assert 0 <= distance_B.min() <= distance_B.max() <= 4
    assert direction_distance_B(given_BD, 3 * given_BD).max() < 1e-24


def test_it_hears_of_a_turn_and_of_a_shift() -> None:
    given_BD, taught_BD = random(1, 8, 2), random(2, 8, 2)
    mean = direction_distance_B(given_BD, taught_BD).mean()
    assert abs(direction_distance_B(given_BD @ turned(0.5).T, taught_BD).mean() - mean) > 1e-2
    assert abs(direction_distance_B(given_BD + 1, taught_BD).mean() - mean) > 1e-2


def test_a_linear_head_can_take_back_any_turn() -> None:
    taught_BD = random(2, 8, 2)
    objective = simreg(taught_BD, taught_BD, depth=1)
    layer = objective.head[0]
    assert isinstance(layer, torch.nn.Linear)
    layer.weight = torch.nn.Parameter(turned(-0.5))
    torch.nn.init.zeros_(layer.bias)
    losses = objective(signals_of(taught_BD @ turned(0.5).T, taught_BD))
    assert losses.terms["simreg"].item() < 1e-20


def test_the_gradient_is_orthogonal_to_the_embedding_and_that_of_differences() -> None:
    given_BD, taught_BD = random(1, 5, 4, grad=True), random(2, 5, 4)
    (gradient_BD,) = torch.autograd.grad(direction_distance_B(given_BD, taught_BD).mean(), given_BD)
    assert (gradient_BD * given_BD).sum(dim=-1).abs().max() < 1e-12
    assert gradient_BD.abs().min() > 0
    assert torch.autograd.gradcheck(lambda rows_BD: direction_distance_B(rows_BD, taught_BD), given_BD)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_the_gradient_through_the_head_is_that_of_differences(depth: int) -> None:
    given_BD, taught_BD = random(1, 5, 3, grad=True), random(2, 5, 4)
    objective = simreg(given_BD, taught_BD, depth=depth, ce_weight=1.0, kd_weight=1.0)
    assert torch.autograd.gradcheck(
        lambda rows_BD: objective(signals_of(rows_BD, taught_BD)).total, given_BD, rtol=1e-6, atol=1e-8
    )


def test_the_papers_head_has_its_parameters() -> None:
    head = regression_head(512, 2048, depth=4, width_factor=2)
    assert sum(parameter.numel() for parameter in head.parameters()) == 3_678_720
    kinds = ["Linear", "BatchNorm", "ReLU", "Linear", "Linear", "BatchNorm", "ReLU", "Linear"]
    assert [type(layer).__name__ for layer in head] == kinds


@pytest.mark.parametrize("width_factor", [1, 2, 4])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_heads_have_their_depth_and_width(depth: int, width_factor: int) -> None:
    head = regression_head(6, 5, depth=depth, width_factor=width_factor)
    linear = [layer for layer in head if isinstance(layer, torch.nn.Linear)]
    assert len(linear) == depth
    assert linear[0].in_features == 6
    assert linear[-1].out_features == 5
    assert depth == 1 or linear[0].out_features == 6 * width_factor
    assert head(random(1, 3, 6, dtype=torch.float32)).shape == (3, 5)


def test_another_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="found depth 3; allowed: 1, 2 and 4"):
        regression_head(6, 5, depth=3, width_factor=1)


def test_without_labels_the_students_logits_get_no_gradient_and_with_them_they_do() -> None:
    given_BD, taught_BD = random(1, 4, 3), random(2, 4, 5)
    own_BC = random(3, 4, 3, grad=True)
    signals = signals_of(given_BD, taught_BD, own_BC=own_BC)
    losses = simreg(given_BD, taught_BD)(signals)
    assert losses.total.item() == pytest.approx(losses.terms["simreg"].item(), rel=1e-12)
    assert torch.autograd.grad(losses.total, own_BC)[0].abs().max() == 0
    labelled = simreg(given_BD, taught_BD, ce_weight=1.0, regression_weight=5.0)(signals)
    expected = labelled.terms["ce"] + 5 * labelled.terms["simreg"]
    assert labelled.total.item() == pytest.approx(expected.item(), rel=1e-12)
    assert torch.autograd.grad(labelled.total, own_BC)[0].abs().max() > 0


def test_soft_targets_are_added_at_their_weight_and_temperature() -> None:
    given_BD, taught_BD = random(1, 2, 3), random(2, 2, 5)
    losses = simreg(given_BD, taught_BD, kd_weight=2.0)(signals_of(given_BD, taught_BD))
    assert losses.terms["kd"].item() == pytest.approx(0.611971, abs=DIGITS)
    expected = losses.terms["simreg"] + 2 * losses.terms["kd"]
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-12)


def test_unlabelled_samples_count_for_the_distance_and_not_for_the_labels() -> None:
    given_BD, taught_BD = random(1, 3, 3), random(2, 3, 5)
    objective = simreg(given_BD, taught_BD, ce_weight=1.0)
    part = signals_of(given_BD, taught_BD, labels=[1, 2, -1], labelling=Labelling(2))
    losses = objective(part)
    whole = objective(signals_of(given_BD, taught_BD, labels=[1, 2, 0]))
    assert losses.terms["simreg"].item() == pytest.approx(whole.terms["simreg"].item(), rel=1e-12)
    alone = objective(signals_of(given_BD[:2], taught_BD[:2], labels=[1, 2]))
    assert losses.terms["ce"].item() == pytest.approx(alone.terms["ce"].item(), rel=1e-12)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_single_sample_of_two_classes_and_zeros_have_a_finite_gradient(rows: int) -> None:
    for given_BD in (random(1, rows, 3, grad=True), torch.zeros(rows, 3).double().requires_grad_()):
        objective = simreg(given_BD, random(2, rows, 4), ce_weight=1.0, kd_weight=1.0)
        own_BC = random(3, rows, 2, grad=True)
        signals = signals_of(
            given_BD,
            random(2, rows, 4),
            own_BC=own_BC,
            teacher_BC=random(4, rows, 2),
            labels=[1] * rows,
        )
        assert is_finite(objective(signals).total, [given_BD, own_BC, *objective.parameters()])


def test_autocast_changes_nothing() -> None:
    given_BD = random(1, 8, 3, dtype=torch.float32, grad=True)
    taught_BD = random(2, 8, 4, dtype=torch.float32)
    objective = simreg(given_BD, taught_BD)
    plain = objective(signals_of(given_BD, taught_BD)).total
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = objective(signals_of(given_BD, taught_BD)).total
    assert half.dtype is torch.float32
    assert half.item() == plain.item()


def test_the_teacher_gets_no_gradient_and_the_order_of_samples_does_not_matter() -> None:
    given_BD, taught_BD = random(1, 6, 3), random(2, 6, 4, grad=True)
    objective = simreg(given_BD, taught_BD)
    total = objective(signals_of(given_BD, taught_BD)).total
    total.backward()  # type: ignore[no-untyped-call]
    assert taught_BD.grad is None
    assert all(parameter.grad is not None for parameter in objective.parameters())
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    other = objective(signals_of(given_BD[order], taught_BD[order])).total
    assert other.item() == pytest.approx(total.item(), rel=1e-12)


def test_the_head_learns_the_teachers_direction() -> None:
    given_BD, taught_BD = random(1, 32, 4), random(1, 32, 4) @ random(2, 4, 6)
    objective = simreg(given_BD, taught_BD, depth=2)
    optimiser = torch.optim.SGD(objective.parameters(), lr=TrainingConfig().lr)
    first = last = objective(signals_of(given_BD, taught_BD)).total
    for _ in range(40):
        optimiser.zero_grad()
        last = objective(signals_of(given_BD, taught_BD)).total
        last.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert last.item() < 0.6 * first.item()
