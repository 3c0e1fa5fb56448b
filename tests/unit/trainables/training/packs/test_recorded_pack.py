"""A pack whose step is replayed, through a double that refuses what a CUDA graph could not hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.trainables.training.packs.packed_courses import (
    KD,
    Told,
    again,
    course,
    states,
    taught_workbench,
    ticket,
    together,
)
from tests.unit.trainables.training.packs.test_pack import OBJECTIVES, RECIPES
from tests.unit.trainables.training.replayed_steps import Recorders
from tests.unit.trainables.training.small_courses import SHORT, same_weights, untimed
from trainables.config import KdConfig, ObjectiveBase, TrainingConfig
from trainables.training.course import Course
from trainables.training.packs.networks import Form
from trainables.training.packs.pack import Pack
from trainables.training.workbench import Workbench

pytestmark = pytest.mark.usefixtures("one_thread")

EPOCHS, STEPS = 5, 5


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return taught_workbench(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def recorders(bench: Workbench) -> Iterator[Recorders]:
    """What records on the bench while `recorded` trains there."""
    plain, found = bench.recorder, Recorders()
    yield found
    bench.recorder = plain


def _assert_the_same(
    courses: list[Course], bench: Workbench, recorders: Recorders, form: Form = Form.GROUPED
) -> None:
    """Replayed, the courses end as they do in a plain pack, to the bit."""
    plain = again(courses)
    expected, _ = together(plain, bench, form)
    bench.recorder = recorders
    found, _ = together(courses, bench, form)
    for own, other in zip(found, expected, strict=True):
        assert [untimed(metrics) for metrics in own.metrics] == [untimed(each) for each in other.metrics]
    assert all(same_weights(*pair) for pair in zip(states(courses), states(plain), strict=True))


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("changes", RECIPES.values(), ids=RECIPES)
def test_replayed_steps_are_those_that_are_called(
    bench: Workbench, recorders: Recorders, form: Form, changes: list[dict[str, Any]]
) -> None:
    """Rates change in each step, views in each epoch: they are recorded once all the same."""
    courses = [course(seed, training=SHORT.with_overrides(**own)) for seed, own in enumerate(changes)]
    _assert_the_same(courses, bench, recorders, form)
    (only,) = recorders.given
    assert (only.recorded, only.replayed) == (1, EPOCHS * STEPS)


@pytest.mark.parametrize("objectives", OBJECTIVES.values(), ids=OBJECTIVES)
def test_a_step_of_every_objective_can_be_replayed(
    bench: Workbench, recorders: Recorders, objectives: list[ObjectiveBase]
) -> None:
    training = SHORT.with_overrides(epochs=2)
    courses = [course(seed, objective, training) for seed, objective in enumerate(objectives)]
    _assert_the_same(courses, bench, recorders)
    assert recorders.given[0].replayed == 2 * STEPS


def test_numbers_that_change_alike_in_all_lanes_are_recorded_anew(
    bench: Workbench, recorders: Recorders
) -> None:
    """Three epochs of warm-up: what weighs the teacher is a plain number, and it changes twice."""
    objective = KdConfig(temperature=2.0, kd_weight=1.0, warmup_epochs=3)
    _assert_the_same([course(seed, objective) for seed in range(2)], bench, recorders)
    assert recorders.given[0].recorded == 3


def test_numbers_that_change_otherwise_in_each_lane_are_not(bench: Workbench, recorders: Recorders) -> None:
    objectives = [KdConfig(temperature=first, final_temperature=1.0) for first in (4.0, 8.0)]
    courses = [course(seed, objective) for seed, objective in enumerate(objectives)]
    _assert_the_same(courses, bench, recorders)
    # In the last epoch all lanes have the same temperature, which is a plain number then.
    assert recorders.given[0].recorded == 2


def test_lanes_that_end_or_stop_or_join_are_recorded_anew(bench: Workbench, recorders: Recorders) -> None:
    """The first ends after two epochs; a third joins then, and is stopped within an epoch."""
    ends = [_in_turns(bench)]
    bench.recorder = recorders
    ends.append(_in_turns(bench))
    (first, told), (second, others) = ends
    assert all(same_weights(*pair) for pair in zip(states(first), states(second), strict=True))
    for one, other in zip(told, others, strict=True):
        assert [untimed(metrics) for metrics in one.metrics] == [untimed(each) for each in other.metrics]
    assert [own.epochs for own in told] == [[1, 2], [1, 2, 3, 4, 5], [1]]
    assert recorders.given[0].recorded == 3


def _in_turns(bench: Workbench) -> tuple[list[Course], list[Told]]:
    recipes: list[TrainingConfig] = [SHORT.with_overrides(epochs=2), SHORT, SHORT]
    courses = [course(seed, KD, recipe) for seed, recipe in enumerate(recipes)]
    told, asked = [Told() for _ in courses], iter(range(100))
    tickets = [ticket(*pair) for pair in zip(courses[:2], told, strict=False)]
    tickets.append(ticket(courses[2], told[2], should_stop=lambda: next(asked) > STEPS + 1))
    pack = Pack(tickets[0], bench, Form.GROUPED)
    for own in tickets[:2]:
        pack.admit(own)
    for epoch in range(EPOCHS):
        if epoch == 2:
            pack.admit(tickets[2])
        pack.train_epoch()
    return courses, told
