"""MLKD, SSKD and HSAKD through the one loop: one pass over all turns, heads that a killed course keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from tests.unit.trainables.cache.tiny_caches import TinyCache
from tests.unit.trainables.objective_variants import student_for, taught_features, variants_teacher
from tests.unit.trainables.training.small_courses import (
    SHORT,
    VIEWS,
    same_weights,
    separable_data,
    small_course,
    small_workbench,
    untimed,
    weights_of,
)
from trainables.config import ObjectiveBase
from trainables.config.objective_base import ROTATED
from trainables.config.objectives import HsakdConfig, MlkdConfig, SskdConfig
from trainables.data.splits import split_facts
from trainables.training.course import Course
from trainables.training.loop import train
from trainables.training.progress.checkpoints import CheckpointFolder
from trainables.training.workbench import Workbench

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIGS: Final[dict[str, ObjectiveBase]] = {
    "mlkd": MlkdConfig(),
    "sskd": SskdConfig(ratio_tf=0.5),
    "hsakd": HsakdConfig(),
}
EPOCHS: Final = 3
TURNING = SHORT.with_overrides(epochs=EPOCHS, checkpoint_every=1)
each = pytest.mark.parametrize("name", CONFIGS)


class Lost(Exception):
    """A worker that dies."""


@pytest.fixture(scope="module")
def workbench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    data, folder = separable_data(), tmp_path_factory.mktemp("lab")
    features = taught_features(CONFIGS.values())
    tiny = TinyCache(folder, data, variants_teacher(), split_facts(data), views=VIEWS, features=features)
    tiny.build(ROTATED)
    return small_workbench(data, cache=tiny.open())


def course_of(name: str, **changes: Any) -> Course:
    objective = CONFIGS[name]
    course = small_course(TURNING, objective=objective)
    return replace(course, model=student_for(objective), **changes)


@each
def test_batch_statistics_are_of_all_turns_at_once_and_nothing_is_added_to_the_student(
    workbench: Workbench, name: str
) -> None:
    course = course_of(name, training=TURNING.with_overrides(epochs=1))
    train(course, workbench, on_epoch=lambda *_: None)
    state = weights_of(course.model)
    assert state.keys() == weights_of(student_for(CONFIGS[name])).keys()
    updates = {value.item() for key, value in state.items() if key.endswith("num_batches_tracked")}
    assert updates == {44 // SHORT.batch_size}


@each
def test_a_killed_course_goes_on_with_the_heads_to_the_same_end(
    workbench: Workbench, tmp_path: Path, name: str
) -> None:
    whole, expected = course_of(name), list[dict[str, float]]()
    train(whole, workbench, on_epoch=lambda _, metrics: expected.append(untimed(metrics)))
    files, told = CheckpointFolder(tmp_path, spec_digest="a"), dict[int, dict[str, float]]()

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        if epoch == EPOCHS:
            raise Lost
        told[epoch] = untimed(metrics)

    with pytest.raises(Lost):
        train(course_of(name), workbench, on_epoch=on_epoch, files=files)
    course = course_of(name)
    train(course, workbench, on_epoch=lambda epoch, m: told.update({epoch: untimed(m)}), files=files)
    assert [told[epoch] for epoch in sorted(told)] == expected
    assert same_weights(weights_of(course.model), weights_of(whole.model))
