"""Schedules through the one loop: against a loop written out here, in what is told, and interrupted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from tests.unit.trainables.cache.tiny_caches import TinyCache
from tests.unit.trainables.training.small_courses import (
    SHORT,
    VIEWS,
    same_weights,
    separable_data,
    small_course,
    small_student,
    small_workbench,
    untimed,
    weights_of,
)
from trainables.config import DkdConfig, KdConfig, ObjectiveBase
from trainables.config.objectives import CtkdConfig, MlldConfig
from trainables.data.splits import split_facts
from trainables.seeds import derive_seed
from trainables.training.course import Course
from trainables.training.loop import train
from trainables.training.progress.checkpoint_paths import kept_state
from trainables.training.progress.checkpoints import CheckpointFolder
from trainables.training.workbench import Workbench

pytestmark = pytest.mark.usefixtures("one_thread")

STEADY = SHORT.with_overrides(schedule="constant", momentum=0.0, weight_decay=0.0)
Told = dict[int, dict[str, float]]


class Lost(Exception):
    """A worker that dies."""


@pytest.fixture(scope="module")
def workbench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    data, folder = separable_data(), tmp_path_factory.mktemp("lab")
    tiny = TinyCache(folder, data, small_student(seed=9), split_facts(data), views=VIEWS)
    tiny.build()
    return small_workbench(tiny.data, cache=tiny.open())


def linear_student() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


@dataclass(frozen=True)
class Plan:
    """What KD is in each of five epochs, written out."""

    config: KdConfig
    temperatures: tuple[float, ...] = (4.0,) * 5
    weights: tuple[float, ...] = (2.0,) * 5


PLANS = {
    "linear": Plan(KdConfig(kd_weight=2.0, final_temperature=1.0), temperatures=(4.0, 3.25, 2.5, 1.75, 1.0)),
    "cosine": Plan(
        KdConfig(kd_weight=2.0, final_temperature=1.0, temperature_schedule="cosine"),
        temperatures=(4.0, 3.560660172, 2.5, 1.439339828, 1.0),
    ),
    "rising": Plan(
        KdConfig(kd_weight=2.0, temperature=1.0, final_temperature=5.0),
        temperatures=(1.0, 2.0, 3.0, 4.0, 5.0),
    ),
    "warm-up": Plan(KdConfig(kd_weight=2.0, warmup_epochs=4), weights=(0.5, 1.0, 1.5, 2.0, 2.0)),
    "both": Plan(
        KdConfig(kd_weight=2.0, warmup_epochs=2, final_temperature=2.0),
        temperatures=(4.0, 3.5, 3.0, 2.5, 2.0),
        weights=(1.0, 2.0, 2.0, 2.0, 2.0),
    ),
}


def by_hand(workbench: Workbench, plan: Plan, *, seed: int) -> list[Tensor]:
    """The student's matrix after each step of gradient descent on 0.1 CE + weight T² KL."""
    model, steps = linear_student(), []
    for epoch, (temperature, weight) in enumerate(zip(plan.temperatures, plan.weights, strict=True), 1):
        generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
        order_N = torch.randperm(workbench.n_train, generator=generator)
        for rows_B in torch.split(order_N[: workbench.n_train // 8 * 8], 8):
            student_BC = model(workbench.images("weak", epoch, rows_B))
            teacher_BC = workbench.teacher("weak", epoch, rows_B).logits_BC
            p_BC, q_BC = ((z_BC / temperature).softmax(dim=1) for z_BC in (teacher_BC, student_BC))
            kl = (p_BC * (p_BC / q_BC).log()).sum(dim=1).mean()
            loss = 0.1 * F.cross_entropy(student_BC, workbench.labels(rows_B)) + weight * temperature**2 * kl
            parameters = list(model.parameters())
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.sub_(0.05 * gradient)
            steps.append(parameters[0].detach().clone())
    return steps


def by_the_loop(workbench: Workbench, config: KdConfig, *, seed: int) -> list[Tensor]:
    """The same of a course."""
    course = Course(linear_student(), config, STEADY, seed)
    steps: list[Tensor] = []
    hook = register_optimizer_step_post_hook(
        lambda *_: steps.append(next(course.model.parameters()).detach().clone())
    )
    try:
        train(course, workbench, on_epoch=lambda *_: None)
    finally:
        hook.remove()
    return steps


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_each_step_is_that_of_kd_with_the_numbers_of_its_epoch(workbench: Workbench, plan: Plan) -> None:
    found, expected = by_the_loop(workbench, plan.config, seed=3), by_hand(workbench, plan, seed=3)
    assert len(found) == len(expected) == 5 * (44 // 8)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    constant = by_hand(workbench, Plan(plan.config, temperatures=(plan.config.temperature,) * 5), seed=3)
    assert not torch.allclose(found[-1], constant[-1], rtol=1e-3, atol=1e-3)


def told_by(workbench: Workbench, objective: ObjectiveBase) -> list[dict[str, float]]:
    told: list[dict[str, float]] = []
    train(small_course(objective=objective), workbench, on_epoch=lambda _, metrics: told.append(metrics))
    return told


def test_what_varies_is_told_with_every_epoch(workbench: Workbench) -> None:
    told = told_by(workbench, KdConfig(final_temperature=1.0, warmup_epochs=4))
    assert [metrics["train/temperature"] for metrics in told] == [4.0, 3.25, 2.5, 1.75, 1.0]
    assert [metrics["train/warmup"] for metrics in told] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_what_does_not_vary_is_not_told(workbench: Workbench) -> None:
    assert not {"train/temperature", "train/warmup"} & told_by(workbench, KdConfig())[0].keys()
    dkd = told_by(workbench, DkdConfig())
    assert [metrics["train/warmup"] for metrics in dkd] == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.25])
    assert "train/temperature" not in dkd[0]


SCHEDULED: dict[str, ObjectiveBase] = {
    "kd": KdConfig(final_temperature=1.0, temperature_schedule="cosine", warmup_epochs=4),
    "mlld": MlldConfig(final_temperature=2.0, warmup_epochs=4),
    "ctkd": CtkdConfig(warmup_epochs=4, curriculum_epochs=3),
}


def listened(
    course: Course, workbench: Workbench, files: CheckpointFolder | None = None, heard: int | None = None
) -> tuple[Told, dict[str, Tensor]]:
    """What is told of a course, and its weights after the last epoch, of which the best may be another."""
    told, last = Told(), dict[str, Tensor]()

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        told[epoch] = untimed(metrics)
        last.update(weights_of(course.model))

    train(course, workbench, on_epoch=on_epoch, files=files, heard=heard)
    return told, last


@pytest.mark.parametrize("dies_in", [2, 4])
@pytest.mark.parametrize("objective", SCHEDULED.values(), ids=SCHEDULED)
def test_a_killed_course_goes_on_with_its_schedules_to_the_same_end(
    tmp_path: Path, workbench: Workbench, objective: ObjectiveBase, dies_in: int
) -> None:
    expected, weights = listened(small_course(objective=objective), workbench)
    files, heard = CheckpointFolder(tmp_path, spec_digest="a"), Told()

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        if epoch == dies_in:
            raise Lost
        heard[epoch] = untimed(metrics)

    with pytest.raises(Lost):
        train(small_course(objective=objective), workbench, on_epoch=on_epoch, files=files)
    told, last = listened(small_course(objective=objective), workbench, files)
    assert heard | told == expected
    assert same_weights(last, weights)


@pytest.mark.parametrize("objective", SCHEDULED.values(), ids=SCHEDULED)
def test_a_fork_with_the_same_numbers_goes_on_as_its_origin_does(
    tmp_path: Path, workbench: Workbench, objective: ObjectiveBase
) -> None:
    origin = CheckpointFolder(tmp_path / "a", spec_digest="a", keep_all=True)
    expected, weights = listened(small_course(objective=objective), workbench, origin)
    fork = CheckpointFolder(tmp_path / "b", spec_digest="b", origin=kept_state(origin.folder, 2))
    told, last = listened(small_course(objective=objective), workbench, fork, heard=2)
    assert told == {epoch: expected[epoch] for epoch in (3, 4, 5)}
    assert same_weights(last, weights)


def test_a_fork_with_another_end_has_its_own_temperature_from_its_next_epoch_on(
    tmp_path: Path, workbench: Workbench
) -> None:
    origin = CheckpointFolder(tmp_path / "a", spec_digest="a", keep_all=True)
    listened(small_course(objective=KdConfig()), workbench, origin)
    fork = CheckpointFolder(tmp_path / "b", spec_digest="b", origin=kept_state(origin.folder, 2))
    told, _ = listened(small_course(objective=KdConfig(final_temperature=2.0)), workbench, fork, heard=2)
    assert {epoch: m["train/temperature"] for epoch, m in told.items()} == {3: 3.0, 4: 2.5, 5: 2.0}
