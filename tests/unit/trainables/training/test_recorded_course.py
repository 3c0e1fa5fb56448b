"""A course alone whose step is replayed, through a double that refuses what a CUDA graph could not hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from tests.unit.trainables.training.packs.packed_courses import (
    KD,
    again,
    alone,
    apart,
    course,
    packed_student,
    states,
    taught_workbench,
)
from tests.unit.trainables.training.packs.test_pack import OBJECTIVES
from tests.unit.trainables.training.replayed_steps import Recorders
from tests.unit.trainables.training.small_courses import (
    SHORT,
    same_weights,
    small_course,
    small_workbench,
    untimed,
)
from trainables.config import CeConfig, KdConfig, ObjectiveBase
from trainables.config.logit_objectives import CtkdConfig
from trainables.training.capture.lone_step import can_be_recorded
from trainables.training.course import Course
from trainables.training.loop import step_once, train
from trainables.training.progress.checkpoints import CheckpointFolder
from trainables.training.ranks import SOLO
from trainables.training.workbench import Workbench

pytestmark = pytest.mark.usefixtures("one_thread")

EPOCHS, STEPS = 5, 5
ROUNDING = 1e-5
"""Relative, of weights after all steps: a mean whose share is a number in fp32."""

RECIPES: dict[str, dict[str, Any]] = {
    "sgd": {},
    "nesterov, constant": {"nesterov": True, "schedule": "constant"},
    "no momentum": {"momentum": 0.0, "warmup_epochs": 1.0},
    "adamw": {"optimizer": "adamw", "lr": 0.01},
    "clipped": {"clip_norm": 0.1},
    "mean of weights": {"ema": 0.9},
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return taught_workbench(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def recorders(bench: Workbench) -> Iterator[Recorders]:
    plain, found = bench.recorder, Recorders()
    yield found
    bench.recorder = plain


def _assert_the_same(own: Course, bench: Workbench, recorders: Recorders) -> None:
    """Replayed, the course ends as it does when its steps are called."""
    (plain,) = again([own])
    expected = alone(plain, bench)
    bench.recorder = recorders
    found = alone(own, bench)
    for one, other in zip(found.metrics, expected.metrics, strict=True):
        assert untimed(one) == pytest.approx(untimed(other), rel=ROUNDING, abs=1e-6)
    assert apart(*states([own]), *states([plain])) < ROUNDING


@pytest.mark.parametrize("changes", RECIPES.values(), ids=RECIPES)
def test_replayed_steps_are_those_that_are_called(
    bench: Workbench, recorders: Recorders, changes: dict[str, Any]
) -> None:
    _assert_the_same(course(1, training=SHORT.with_overrides(**changes)), bench, recorders)
    (only,) = recorders.given
    assert (only.recorded, only.replayed) == (1, EPOCHS * STEPS)


@pytest.mark.parametrize("objectives", OBJECTIVES.values(), ids=OBJECTIVES)
def test_a_step_of_every_objective_without_a_state_can_be_replayed(
    bench: Workbench, recorders: Recorders, objectives: list[ObjectiveBase]
) -> None:
    _assert_the_same(course(1, objectives[1], SHORT.with_overrides(epochs=2)), bench, recorders)
    assert recorders.given[0].replayed == 2 * STEPS


@pytest.mark.parametrize(
    ("objective", "recorded"),
    [(KdConfig(warmup_epochs=3), 3), (KdConfig(temperature=4.0, final_temperature=1.0), EPOCHS)],
    ids=["warm-up", "temperature"],
)
def test_hyper_parameters_that_change_are_recorded_anew(
    bench: Workbench, recorders: Recorders, objective: ObjectiveBase, recorded: int
) -> None:
    _assert_the_same(course(1, objective), bench, recorders)
    assert recorders.given[0].recorded == recorded


def test_a_recorded_course_goes_on_from_its_file(
    tmp_path: Path, bench: Workbench, recorders: Recorders
) -> None:
    """It is killed in its third epoch; momenta, counts and the mean of the weights are brought back."""
    training = SHORT.with_overrides(optimizer="adamw", ema=0.9, lr=0.01)
    whole, first, second = (course(1, training=training) for _ in range(3))
    bench.recorder, files = recorders, CheckpointFolder(tmp_path, spec_digest="a")
    alone(whole, bench)
    with pytest.raises(_Lost):
        train(first, bench, on_epoch=_die_in_the_third, files=files)
    told = alone(second, bench, files)
    assert told.epochs == [3, 4, 5]
    assert same_weights(*states([second, whole]))


class _Lost(Exception):
    """A worker that dies."""


def _die_in_the_third(epoch: int, _: object) -> None:
    if epoch == 3:
        raise _Lost


def test_the_state_of_a_recorded_course_is_taken_up_by_one_that_is_not(
    tmp_path: Path, bench: Workbench, recorders: Recorders
) -> None:
    """As where a course changes from a GPU to a CPU."""
    training = SHORT.with_overrides(optimizer="adamw", lr=0.01)
    whole, first, second = (course(1, training=training) for _ in range(3))
    alone(whole, bench)
    plain, bench.recorder = bench.recorder, recorders
    files = CheckpointFolder(tmp_path, spec_digest="a")
    with pytest.raises(_Lost):
        train(first, bench, on_epoch=_die_in_the_third, files=files)
    bench.recorder = plain
    alone(second, bench, files)
    assert apart(*states([second, whole])) < ROUNDING


def test_a_network_that_draws_random_numbers_is_called_each_time() -> None:
    """Its dropout draws the same masks as if nothing had been tried before."""
    plain, tried = small_workbench(), small_workbench()
    expected = small_course()
    alone(expected, plain)
    tried.recorder = recorders = Recorders()
    own = small_course()
    alone(own, tried)
    assert (recorders.given[0].refused, recorders.given[0].replayed) == (1, 0)
    assert same_weights(*states([own, expected]))


@pytest.mark.parametrize(
    ("objective", "expected"),
    [(KD, True), (CeConfig(), True), (CtkdConfig(), False)],
    ids=["logits", "labels", "a state"],
)
def test_which_courses_are_recorded(bench: Workbench, objective: ObjectiveBase, expected: bool) -> None:
    assert can_be_recorded(course(1, objective), bench) is expected


def test_a_course_that_hears_a_teacher_beside_it_is_not_recorded() -> None:
    assert not can_be_recorded(course(1, KD), small_workbench())


def test_a_compiled_course_is_not_recorded(bench: Workbench) -> None:
    own = course(1)
    assert not can_be_recorded(replace(own, forward=own.model), bench)


def test_a_step_that_is_counted_is_made_once(bench: Workbench, recorders: Recorders) -> None:
    """What its operations cost is counted meanwhile; to record it, it would be made several times."""
    passes, own = [], course(1)
    own.model.register_forward_hook(lambda *_: passes.append(1))
    bench.recorder = recorders
    step_once(own, bench, share_of=SOLO, within=nullcontext)
    assert len(passes) == 1


class _Counting(nn.Module):
    """Weighs its answers by how many passes it has made, which is a number of Python's."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.passes = packed_student(1), 0

    def forward(self, images_BCHW: Tensor) -> Tensor:
        self.passes += self.training
        logits_BC: Tensor = self.network(images_BCHW)
        return logits_BC * (1 + 0.01 * self.passes)


def test_a_network_that_counts_its_passes_is_called_each_time(recorders: Recorders, bench: Workbench) -> None:
    own, plain = (Course(_Counting(), CeConfig(), SHORT, 1) for _ in range(2))
    alone(plain, bench)
    bench.recorder = recorders
    alone(own, bench)
    assert recorders.given[0].replayed == 0
    assert own.model.passes == plain.model.passes == EPOCHS * STEPS
    assert same_weights(*states([own, plain]))
