"""A compiled student gives the features that its objective asks for, and learns what a plain one learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.unit.trainables.cache.tiny_caches import TinyCache
from tests.unit.trainables.training.small_courses import (
    CPU,
    SHORT,
    VIEWS,
    separable_data,
    small_student,
    small_workbench,
    weights_of,
)
from trainables.config import KdConfig, ObjectiveBase, Precision
from trainables.config.objectives import RkdConfig
from trainables.data.splits import split_facts
from trainables.models.features import FeatureTap, untapped
from trainables.slots.compiled_students import CompiledStudents
from trainables.training.course import Course
from trainables.training.loop import train
from trainables.training.step_inputs import student_tap
from trainables.training.workbench import Workbench

TWO = SHORT.with_overrides(epochs=2)
EMBEDDED: dict[str, tuple[str, ...]] = {"weak": ("embedding",), "strong": ("embedding",)}


@pytest.fixture
def workbench(tmp_path: Path) -> Workbench:
    data = separable_data()
    tiny = TinyCache(
        tmp_path,
        data,
        small_student(seed=9),
        split_facts(data),
        views=VIEWS,
        precision=Precision.FP32,
        features=EMBEDDED,
    )
    tiny.build()
    return small_workbench(data, cache=tiny.open())


def compiled(students: CompiledStudents, objective: ObjectiveBase, bench: Workbench, seed: int) -> Course:
    """As a slot makes it, but for the compiler: `eager` runs what was traced as it is."""

    def tap(network: nn.Module) -> FeatureTap | None:
        return student_tap(objective, network, bench.data, CPU, {})

    key = "/".join(objective.student_features)
    student = students.take(key, small_student(seed), tap)
    plain = Course(student.model, objective, TWO, 3)
    return replace(plain, forward=student.forward, tap=student.tap)


@pytest.mark.parametrize("objective", [RkdConfig(), KdConfig()], ids=["features", "logits"])
def test_a_compiled_student_ends_as_a_plain_one(workbench: Workbench, objective: ObjectiveBase) -> None:
    students = CompiledStudents(backend="eager")
    for seed in (1, 2):  # the second brings its weights to the network of the first
        plain, course = small_student(seed), compiled(students, objective, workbench, seed)
        assert (course.tap is None) == (not objective.student_features)
        train(Course(plain, objective, TWO, 3), workbench, on_epoch=lambda *_: None)
        train(course, workbench, on_epoch=lambda *_: None)
        for name, value in weights_of(course.model).items():
            torch.testing.assert_close(value, weights_of(plain)[name], rtol=1e-5, atol=1e-6)


def test_students_with_and_without_features_are_compiled_apart(workbench: Workbench) -> None:
    students = CompiledStudents(backend="eager")
    heard = compiled(students, RkdConfig(), workbench, 1).model
    deaf = compiled(students, KdConfig(), workbench, 1).model
    assert heard is not deaf
    assert heard is compiled(students, RkdConfig(), workbench, 2).model
    assert list(untapped(heard).state_dict()) == list(deaf.state_dict())
