"""`training.compile` on a GPU, where Triton is installed."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from tests.gpu.compared_courses import assert_close, bench_on, resnet, run
from tests.unit.trainables.training.small_courses import SHORT
from trainables.config import CeConfig
from trainables.slots.compiled_students import CompiledStudents, find_compiler
from trainables.training.course import Course

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("exact")]


@pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler here")
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton here")
def test_a_compiled_student_on_a_gpu_ends_as_a_plain_one(device: torch.device) -> None:
    # The compiler for CPUs is tried elsewhere; here it would only take its time.
    students = CompiledStudents(backend="inductor" if device.type == "cuda" else "aot_eager")
    training = SHORT.with_overrides(epochs=2)
    plain = run(Course(resnet(), CeConfig(), training, 3), bench_on(device))
    for _ in range(2):
        student = students.take("a", resnet())
        course = Course(student.model, CeConfig(), training, 3, forward=student.forward)
        compiled = run(course, bench_on(device))
        assert list(compiled.weights) == list(plain.weights)
        assert_close(compiled, plain, logits=5e-3, means=5e-3)
