"""What is kept of compiled students; the compiler itself is tried by the integration tests."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from tests.unit.trainables.training.small_courses import (
    SHORT,
    same_weights,
    small_course,
    small_student,
    small_workbench,
    weights_of,
)
from trainables.config import CeConfig, ModelConfig, ModelName
from trainables.errors import ConfigError
from trainables.models import build_model
from trainables.slots import compiled_students
from trainables.slots.compiled_students import CompiledStudents
from trainables.training.course import Course
from trainables.training.loop import train


@pytest.fixture
def students() -> CompiledStudents:
    """Traced by torch.compile, and run without a compiler."""
    return CompiledStudents(2, backend="aot_eager")


def trained(students: CompiledStudents, *, seed: int, key: str = "a") -> nn.Module:
    student = students.take(key, small_student(seed))
    course = Course(student.model, CeConfig(), SHORT, 3, forward=student.forward)
    train(course, small_workbench(), on_epoch=lambda *_: None)
    return student.model


def test_a_compiled_student_ends_as_a_plain_one_with_plain_names(students: CompiledStudents) -> None:
    plain = small_course()
    train(plain, small_workbench(), on_epoch=lambda *_: None)
    model = trained(students, seed=0)
    assert list(model.state_dict()) == list(plain.model.state_dict())
    for found, expected in zip(model.state_dict().values(), plain.model.state_dict().values(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_a_network_that_is_no_sequence_of_layers_is_compiled_too(students: CompiledStudents) -> None:
    """torch.compile's module has a length, which raises for such a network where it is asked for a truth."""
    network = build_model(ModelConfig(name=ModelName.RESNET8, width=2), n_classes=3, in_channels=1)
    student = students.take("a", network)
    course = Course(student.model, CeConfig(), SHORT.with_overrides(epochs=1), 3, forward=student.forward)
    before = weights_of(student.model)
    train(course, small_workbench(), on_epoch=lambda *_: None)
    assert not same_weights(before, weights_of(student.model))


def test_the_next_trial_takes_the_compiled_student_and_nothing_else_of_the_last(
    students: CompiledStudents,
) -> None:
    fresh = weights_of(trained(CompiledStudents(1, backend="aot_eager"), seed=1))
    first = trained(students, seed=0)
    again = trained(students, seed=1)
    assert again is first
    assert same_weights(weights_of(again), fresh)


def test_buffers_outside_the_state_dict_start_anew(students: CompiledStudents) -> None:
    def counting() -> nn.Module:
        model = nn.Linear(2, 2)
        model.register_buffer("steps", torch.zeros(()), persistent=False)
        return model

    first = students.take("a", counting()).model
    first.get_buffer("steps").add_(5)
    first(torch.ones(1, 2)).sum().backward()
    again = students.take("a", counting()).model
    assert again is first
    assert float(again.get_buffer("steps")) == 0
    assert all(parameter.grad is None for parameter in again.parameters())


def test_only_so_many_compiled_students_are_kept(students: CompiledStudents) -> None:
    models = {key: students.take(key, small_student()).model for key in ("a", "b")}
    assert students.take("a", small_student()).model is models["a"]
    students.take("c", small_student())
    assert students.take("a", small_student()).model is models["a"]
    assert students.take("b", small_student()).model is not models["b"]


def test_students_of_one_class_share_no_limit_of_compilations() -> None:
    counters.clear()
    students = CompiledStudents(12, backend="eager")
    kept = [students.take(str(width), nn.Linear(width, 2)) for width in range(1, 13)]
    for width, student in enumerate(kept, start=1):
        student.forward(torch.ones(1, width))
    assert counters["stats"]["unique_graphs"] == len(kept)


def test_without_a_compiler_the_trial_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_students, "COMPILERS", ("no-such-compiler",))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(
        ConfigError, match=r"no C\+\+ compiler \(no-such-compiler, or CXX\); .*compile: false"
    ):
        CompiledStudents().take("a", small_student())
