from __future__ import annotations

import copy
import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from trainables.config import OptimizerName, ScheduleName, TrainingConfig
from trainables.training.optimisers import (
    build_optimizer,
    clip_gradients,
    learning_rate,
    restore_optimizer,
    set_learning_rate,
)

CRD = TrainingConfig(epochs=240, lr=0.05, schedule=ScheduleName.STEP, milestones=(150, 180, 210), gamma=0.1)
"""The recipe of Contrastive Representation Distillation (Tian et al., ICLR 2020)."""


def cosine(**changes: object) -> TrainingConfig:
    return TrainingConfig.from_plain({"epochs": 10, "lr": 0.4, "schedule": "cosine", **changes})


@pytest.mark.parametrize(("progress", "part"), [(0, 1), (5, 0.5), (10, 0), (2.5, 0.5 + 0.5 * math.sqrt(0.5))])
def test_cosine_goes_from_the_peak_through_the_half_to_zero(progress: float, part: float) -> None:
    assert learning_rate(cosine(), progress) == pytest.approx(0.4 * part, abs=1e-15)


def test_cosine_agrees_with_torchs_schedule_at_every_epoch() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    for epoch in range(10):
        assert learning_rate(cosine(), epoch) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()


def test_cosine_stays_at_zero_beyond_its_end() -> None:
    assert learning_rate(cosine(), 12) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("within", [0.0, 0.5, 0.999])
def test_steps_fall_in_the_epochs_in_which_the_crd_recipe_has_them(within: float) -> None:
    """Its epochs count from 1, and an epoch decays once it is greater than a milestone."""
    for epoch in range(1, CRD.epochs + 1):
        expected = 0.05 * 0.1 ** sum(epoch > milestone for milestone in (150, 180, 210))
        assert learning_rate(CRD, epoch - 1 + within) == pytest.approx(expected, rel=1e-12)


def test_a_constant_rate_is_constant() -> None:
    training = TrainingConfig(epochs=3, lr=0.2, schedule=ScheduleName.CONSTANT)
    assert {learning_rate(training, progress) for progress in (0, 0.5, 1, 2.9)} == {0.2}


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_warm_up_rises_in_a_straight_line_from_above_zero_to_the_peak(schedule: str) -> None:
    training = cosine(schedule=schedule, warmup_epochs=2)
    rates = [learning_rate(training, progress) for progress in (0, 0.5, 1, 1.5, 2)]
    rises = [after - before for before, after in pairwise(rates)]
    assert 0 < rates[0] < 0.01 * 0.4
    assert rates[-1] == pytest.approx(0.4)
    assert rises == pytest.approx([rises[0]] * 4)


def test_after_warm_up_the_cosine_takes_the_epochs_that_are_left() -> None:
    training = cosine(warmup_epochs=2)
    assert learning_rate(training, 6) == pytest.approx(0.2)
    assert learning_rate(training, 10) == pytest.approx(0, abs=1e-15)


def test_a_warm_up_longer_than_the_course_never_reaches_the_peak() -> None:
    training = cosine(warmup_epochs=20)
    assert learning_rate(training, 9.99) < 0.4 / 2


def test_sgd_is_built_as_configured() -> None:
    training = TrainingConfig(lr=0.3, momentum=0.8, nesterov=True, weight_decay=1e-3)
    model = nn.Linear(2, 2)
    optimizer = build_optimizer(model, training)
    assert isinstance(optimizer, torch.optim.SGD)
    (group,) = optimizer.param_groups
    assert [group[key] for key in ("lr", "momentum", "nesterov", "weight_decay")] == [0.3, 0.8, True, 1e-3]
    assert group["params"] == list(model.parameters())


def test_adamw_is_built_as_configured() -> None:
    training = TrainingConfig(optimizer=OptimizerName.ADAMW, lr=2e-3, weight_decay=0.02)
    optimizer = build_optimizer(nn.Linear(2, 2), training)
    assert isinstance(optimizer, torch.optim.AdamW)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (2e-3, 0.02)


@pytest.mark.parametrize("optimizer", OptimizerName)
def test_the_fused_optimiser_does_what_the_plain_one_does(optimizer: OptimizerName) -> None:
    """In channels_last too: there weights and gradients have strides that kernels must respect."""
    training = TrainingConfig(optimizer=optimizer, lr=0.01, nesterov=optimizer is OptimizerName.SGD)
    torch.manual_seed(0)
    # Without a bias before batch norm: its gradient is rounding alone, which AdamW would scale to full steps.
    convolution = nn.Conv2d(3, 8, 3, bias=False)
    fused_model = nn.Sequential(convolution, nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 4))
    fused_model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    plain_model = copy.deepcopy(fused_model)
    fused, plain = build_optimizer(fused_model, training), build_optimizer(plain_model, training)
    assert fused.defaults["fused"]
    for group in plain.param_groups:
        group["fused"], group["foreach"] = False, False
    for _ in range(4):
        images = torch.rand(5, 3, 8, 8).contiguous(memory_format=torch.channels_last)
        for model, optimiser in ((fused_model, fused), (plain_model, plain)):
            optimiser.zero_grad()
            model(images).square().mean().backward()
            optimiser.step()
    for found, expected in zip(fused_model.parameters(), plain_model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_parameters_that_no_fused_kernel_takes_get_the_plain_optimiser() -> None:
    odd = nn.Linear(2, 2, dtype=torch.complex64)
    assert not build_optimizer(odd, TrainingConfig()).defaults["fused"]


@pytest.mark.parametrize("optimizer", OptimizerName)
def test_a_trial_that_forks_off_takes_the_momenta_and_keeps_its_own_numbers(optimizer: OptimizerName) -> None:
    origin = TrainingConfig(optimizer=optimizer, lr=0.1, momentum=0.9, weight_decay=0.1)
    fork = origin.with_overrides(momentum=0.5, weight_decay=0.3)
    model = nn.Linear(2, 2)
    first = build_optimizer(model, origin)
    model(torch.ones(1, 2)).sum().backward()
    first.step()
    second = build_optimizer(model, fork)
    numbers = [second.param_groups[0][name] for name in ("lr", "weight_decay", "fused")]
    restore_optimizer(second, first.state_dict())
    assert [second.param_groups[0][name] for name in ("lr", "weight_decay", "fused")] == numbers
    assert second.param_groups[0].get("momentum", 0.5) == 0.5
    for parameter in model.parameters():
        assert str(second.state[parameter]) == str(first.state[parameter]) != "{}"


@pytest.mark.parametrize(("max_norm", "left"), [(1.0, 1.0), (5.0, 5.0), (9.0, 5.0)])
def test_gradients_of_all_groups_are_scaled_together_down_to_a_norm(max_norm: float, left: float) -> None:
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [parameter]} for parameter in parameters], lr=1.0)
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    assert float(clip_gradients(optimizer, max_norm)) == pytest.approx(5.0)
    found = [float(parameter.grad.norm()) for parameter in parameters if parameter.grad is not None]
    assert found == pytest.approx([left * 3 / 5, left * 4 / 5], rel=1e-5)


def test_a_rate_is_given_to_every_group() -> None:
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [p], "lr": 1.0} for p in parameters])
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]
