"""What a slot keeps between jobs, and within which bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.trainables.slots.conftest import N_TRAIN
from tests.unit.trainables.training.small_courses import CPU, same_weights, weights_of
from trainables.config import (
    CeConfig,
    ModelConfig,
    ModelName,
    Role,
    StartWeights,
    TrainingConfig,
    TrialSpec,
    WorkbenchSpec,
)
from trainables.local_files import file_sha256
from trainables.models.weights import save_weights, weights_digest
from trainables.slots import warm_state
from trainables.slots.compiled_students import CompiledStudents
from trainables.slots.warm_state import WarmState
from trainables.training.loop import train
from trainables.training.workbench import RENDER_BUDGET_BYTES, render_budget

STUDENT = ModelConfig(name=ModelName.MLP, width=8)


def trial(student: ModelConfig = STUDENT, **training: Any) -> TrialSpec:
    recipe = TrainingConfig(epochs=1, batch_size=20).with_overrides(**training)
    return TrialSpec(
        trial_id="ce-1", role=Role.SEARCH, objective=CeConfig(), student=student, training=recipe, seed=3
    )


def test_the_last_workbenches_are_kept_and_the_oldest_goes(spec: WorkbenchSpec) -> None:
    warm = WarmState(CPU, max_workbenches=2)
    specs = [spec.with_overrides(view_seed=seed) for seed in (1, 2, 3)]
    first, second = (warm.workbench(one) for one in specs[:2])
    assert warm.workbench(specs[0]) is first
    warm.workbench(specs[2])
    assert warm.workbench(specs[0]) is first
    assert warm.workbench(specs[1]) is not second


def test_idle_workbenches_that_hold_too_much_go_before_another_is_opened(
    spec: WorkbenchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = N_TRAIN * 64
    monkeypatch.setattr(warm_state, "IDLE_BYTES", 2 * images)
    warm = WarmState(CPU)
    specs = [spec.with_overrides(view_seed=seed) for seed in (1, 2, 3)]
    first = warm.workbench(specs[0])
    assert first.held_bytes == images
    first.images("weak", 1, torch.arange(4))
    assert first.held_bytes == 2 * images  # the images and one rendered view
    second = warm.workbench(specs[1])
    assert warm.workbench(specs[0]) is first
    warm.workbench(specs[2])
    assert warm.workbench(specs[0]) is first
    assert warm.workbench(specs[1]) is not second


def test_data_is_loaded_once_for_all_workbenches(spec: WorkbenchSpec) -> None:
    warm = WarmState(CPU)
    assert warm.workbench(spec).data is warm.workbench(spec.with_overrides(view_seed=2)).data


@pytest.mark.usefixtures("either_bf16")
def test_trials_of_different_shapes_share_data_and_views(spec: WorkbenchSpec) -> None:
    warm = WarmState(CPU)
    workbench = warm.workbench(spec)
    accuracies = []
    for student in (
        STUDENT,
        ModelConfig(name=ModelName.CONVNET, width=2),
        ModelConfig(name=ModelName.CONVNET, width=2, resolution=12),
    ):
        for training in ({"batch_size": 30}, {"optimizer": "adamw", "schedule": "constant"}):
            course = warm.course(trial(student, **training), spec)
            told: list[dict[str, float]] = []
            train(course, warm.workbench(spec), on_epoch=lambda _, m, told=told: told.append(m))  # type: ignore[misc]
            accuracies.append(told[-1]["selection/accuracy"])
    assert len(accuracies) == 6
    assert all(0 <= accuracy <= 1 for accuracy in accuracies)
    assert warm.workbench(spec) is workbench
    assert workbench.held_bytes == 2 * N_TRAIN * 64


@pytest.mark.usefixtures("either_bf16")
def test_students_of_every_seed_start_from_the_file_of_the_workbench(
    spec: WorkbenchSpec, tmp_path: Path
) -> None:
    warm, path = WarmState(CPU), tmp_path / "start.safetensors"
    there = warm.build(STUDENT, spec, seed=77)
    save_weights(there, path, {})
    started = spec.with_overrides(start=StartWeights(path=str(path), sha256=file_sha256(path)))
    assert started.digest() != spec.digest()
    assert "start" not in spec.plain()
    for seed in (1, 2):
        course = warm.course(trial().with_overrides(seed=seed), started)
        assert weights_digest(course.model) == weights_digest(there)
    assert weights_digest(warm.course(trial(), spec).model) != weights_digest(there)


@pytest.mark.usefixtures("either_bf16")
def test_a_compiled_student_is_kept_for_trials_of_its_shape(
    spec: WorkbenchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_state, "CompiledStudents", lambda: CompiledStudents(backend="aot_eager"))
    warm = WarmState(CPU)
    one = warm.course(trial(compile=True), spec)
    fresh = weights_of(one.model)
    train(one, warm.workbench(spec), on_epoch=lambda *_: None)
    again = warm.course(trial(compile=True, lr=0.5), spec)
    assert (again.model, again.forward) == (one.model, one.forward)
    assert again.forward is not again.model
    assert same_weights(weights_of(again.model), fresh)
    others = [
        trial(compile=True, batch_size=10),
        trial(ModelConfig(name=ModelName.MLP, width=9), compile=True),
        trial(compile=True, precision="bf16"),
    ]
    assert all(warm.course(other, spec).model is not one.model for other in others)


@pytest.mark.usefixtures("either_bf16")
def test_a_student_that_is_not_to_be_compiled_is_new_each_time(spec: WorkbenchSpec) -> None:
    warm = WarmState(CPU)
    one, other = warm.course(trial(), spec), warm.course(trial(), spec)
    assert one.model is not other.model
    assert one.forward is None


def test_a_cpu_keeps_a_gibibyte_of_views() -> None:
    assert render_budget(CPU) == RENDER_BUDGET_BYTES == 1 << 30
