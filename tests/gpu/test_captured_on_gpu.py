"""Steps that are replayed as CUDA graphs end where called ones do; a rehearsal has a double of graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.unit.trainables.training.packs.packed_courses import (
    KD,
    Told,
    again,
    alone,
    apart,
    course,
    packed_student,
    states,
    taught_workbench,
    ticket,
    together,
)
from tests.unit.trainables.training.packs.test_pack import OBJECTIVES, RECIPES
from tests.unit.trainables.training.replayed_steps import Counted, Replays
from tests.unit.trainables.training.small_courses import SHORT, same_weights, small_course
from trainables.config import KdConfig, ObjectiveBase, TrainingPrecision
from trainables.training.capture.recorders import Plain, Recorder, recorder_for
from trainables.training.course import Course
from trainables.training.loop import steps_alone
from trainables.training.packs.networks import Form
from trainables.training.packs.pack import Pack
from trainables.training.workbench import Workbench

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("exact")]

SAME = 1e-4
"""Relative, of weights: what is left when kernels are chosen in another order."""
STEPS = 5


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, device: torch.device) -> Workbench:
    return taught_workbench(tmp_path_factory.mktemp("cache"), device=device)


@contextmanager
def captured(bench: Workbench) -> Iterator[list[Counted]]:
    """Meanwhile the bench records: on a GPU for itself, in a rehearsal through the double."""
    before, given = bench.recorder, list[Counted]()

    def give() -> Recorder:
        own: Recorder = recorder_for(bench.device) if bench.device.type == "cuda" else Replays()
        given.append(Counted(own))
        return given[-1]

    bench.recorder = give
    yield given
    bench.recorder = before


@contextmanager
def called(bench: Workbench) -> Iterator[None]:
    """Meanwhile every step is called."""
    before, bench.recorder = bench.recorder, Plain
    yield
    bench.recorder = before


def _farthest(ones: list[Course], others: list[Course]) -> float:
    return max(apart(*pair) for pair in zip(states(ones), states(others), strict=True))


def _in_three_ways(courses: list[Course], bench: Workbench, form: Form) -> tuple[Counted, float, float]:
    """What recorded, and how far a captured pack is from one that is called, and from the same alone."""
    plain, lone = again(courses), again(courses)
    with captured(bench) as given:
        together(courses, bench, form)
    with called(bench):
        together(plain, bench, form)
        for own in lone:
            alone(own, bench)
    return given[0], _farthest(courses, plain), _farthest(courses, lone)


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("changes", RECIPES.values(), ids=RECIPES)
def test_a_captured_pack_is_the_called_one_and_its_students_alone(
    bench: Workbench, form: Form, changes: list[dict[str, Any]]
) -> None:
    """Rates of a schedule change in each step: a rate that a graph kept would show."""
    training = [SHORT.with_overrides(**{"epochs": 3, **own}) for own in changes]
    courses = [course(seed, training=own) for seed, own in enumerate(training)]
    recorder, from_called, from_alone = _in_three_ways(courses, bench, form)
    assert (recorder.recorded, recorder.refused) == (1, 0)
    assert from_called < SAME
    assert from_alone < SAME


@pytest.mark.parametrize("objectives", OBJECTIVES.values(), ids=OBJECTIVES)
def test_every_objective_is_captured(bench: Workbench, objectives: list[ObjectiveBase]) -> None:
    training = SHORT.with_overrides(epochs=1)
    courses = [course(seed, objective, training) for seed, objective in enumerate(objectives)]
    recorder, from_called, from_alone = _in_three_ways(courses, bench, Form.GROUPED)
    assert (recorder.recorded, recorder.refused) == (1, 0)
    assert from_called < SAME
    assert from_alone < SAME


@pytest.mark.parametrize(
    "objectives",
    [
        [KdConfig(warmup_epochs=3), KdConfig(warmup_epochs=3)],
        [KdConfig(temperature=first, final_temperature=1.0) for first in (4.0, 8.0)],
    ],
    ids=["warm-up", "temperature"],
)
def test_schedules_of_the_objective_go_on_in_a_captured_pack(
    bench: Workbench, objectives: list[ObjectiveBase]
) -> None:
    courses = [course(seed, objective) for seed, objective in enumerate(objectives)]
    recorder, from_called, _ = _in_three_ways(courses, bench, Form.GROUPED)
    assert recorder.refused == 0
    assert from_called < SAME


def test_a_pack_is_captured_anew_when_lanes_leave_and_join(bench: Workbench) -> None:
    with captured(bench) as given:
        found = _in_turns(bench)
    with called(bench):
        expected = _in_turns(bench)
    assert _farthest(found, expected) < SAME
    assert (given[0].recorded, given[0].refused) == (3, 0)


def _in_turns(bench: Workbench) -> list[Course]:
    """The first ends after two epochs; a third joins then, and is stopped within an epoch."""
    recipes = [SHORT.with_overrides(epochs=2), SHORT, SHORT]
    courses, asked = [course(seed, KD, recipe) for seed, recipe in enumerate(recipes)], iter(range(100))
    tickets = [ticket(own, Told()) for own in courses]
    tickets[2].should_stop = lambda: next(asked) > STEPS + 1
    pack = Pack(tickets[0], bench, Form.GROUPED)
    for own in tickets[:2]:
        pack.admit(own)
    for epoch in range(SHORT.epochs):
        if epoch == 2:
            pack.admit(tickets[2])
        pack.train_epoch()
    return courses


LONE: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.0},
    "momentum": {},
    "adamw": {"optimizer": "adamw", "lr": 0.01},
    "clipped, mean of weights": {"clip_norm": 0.1, "ema": 0.9},
}


@pytest.mark.parametrize("changes", LONE.values(), ids=LONE)
def test_a_captured_course_is_the_called_one(bench: Workbench, changes: dict[str, Any]) -> None:
    own = course(1, KdConfig(warmup_epochs=2), SHORT.with_overrides(**{"epochs": 3, **changes}))
    (plain,) = again([own])
    with captured(bench) as given:
        alone(own, bench)
    with called(bench):
        alone(plain, bench)
    assert (given[0].recorded, given[0].refused) == (2, 0)
    assert _farthest([own], [plain]) < SAME


def test_a_course_in_bf16_is_captured(bench: Workbench) -> None:
    own = course(1, training=SHORT.with_overrides(precision=TrainingPrecision.BF16, epochs=2))
    (plain,) = again([own])
    with captured(bench) as given:
        alone(own, bench)
    with called(bench):
        alone(plain, bench)
    assert given[0].refused == 0
    assert _farthest([own], [plain]) < 0.02


def test_a_course_that_draws_random_numbers_is_called_and_draws_what_it_would(bench: Workbench) -> None:
    ends = []
    for way in (captured, called):
        own = small_course(SHORT.with_overrides(epochs=2))
        with way(bench) as given:
            alone(own, bench)
        ends.append(states([own])[0])
        if given is not None:
            assert (given[0].recorded, given[0].refused) == (0, 1)
    assert same_weights(*ends)


class _Waiting(nn.Module):
    """Asks the device for a number in each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.network = packed_student(1)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        logits_BC: Tensor = self.network(images_BCHW)
        return logits_BC if float(logits_BC.detach().sum()) > -1e9 else -logits_BC


def test_a_network_that_waits_for_the_device_is_called(bench: Workbench) -> None:
    """On a GPU that is found before a capture, and what comes after is computed as ever."""
    waiting, plain = course(1, training=SHORT), course(1, training=SHORT)
    alone(Course(_Waiting(), KD, SHORT, 1), bench)
    alone(waiting, bench)
    with called(bench):
        alone(plain, bench)
    assert _farthest([waiting], [plain]) < SAME


@contextmanager
def _no_waiting(device: torch.device) -> Iterator[None]:
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("packed", [True, False], ids=["pack", "alone"])
def test_the_host_waits_for_nothing_within_an_epoch(bench: Workbench, packed: bool) -> None:
    """Not even for what a step reads: data, views and answers lie on the device."""
    with captured(bench):
        step = _steps_of_a_pack(bench) if packed else steps_alone(course(1), bench)
        for _ in range(2):
            step()
        with _no_waiting(bench.device):
            for _ in range(2 * STEPS):
                step()


def _steps_of_a_pack(bench: Workbench) -> Callable[[], None]:
    tickets = [ticket(course(seed, KdConfig(temperature=2.0 + seed)), Told()) for seed in range(3)]
    pack = Pack(tickets[0], bench, Form.GROUPED)
    for own in tickets:
        pack.admit(own)
    return pack.steps()
