"""bf16 autocast on a GPU: where it is used, where it is not, and how it is chosen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.gpu.compared_courses import bench_on, resnet, run
from tests.unit.trainables.training.small_courses import SHORT, same_weights, weights_of
from trainables.config import (
    CeConfig,
    DataConfig,
    ModelConfig,
    ModelName,
    Role,
    TrainingConfig,
    TrainingPrecision,
    TrialSpec,
    ViewsConfig,
    WorkbenchSpec,
)
from trainables.objectives import CeObjective
from trainables.signals import Losses, Signals
from trainables.slots.warm_state import WarmState
from trainables.training import loop, precision
from trainables.training.course import Course
from trainables.training.loop import train
from trainables.training.precision import TABLE_VERSION, DeviceKind, by_table, device_kind

pytestmark = pytest.mark.gpu

BF16 = SHORT.with_overrides(precision=TrainingPrecision.BF16)


class Watched(nn.Module):
    """Notes in which type its first layer computes, in training and in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = resnet()
        self.seen: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
        self.inner.get_submodule("conv1").register_forward_hook(self._note)

    def _note(self, _module: nn.Module, _inputs: object, maps: Tensor) -> None:
        self.seen[self.training].add(maps.dtype)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        return logits


def test_a_network_computes_in_bf16_and_all_else_is_fp32(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: set[tuple[torch.dtype, torch.dtype]] = set()

    class Noting(CeObjective):
        def forward(self, signals: Signals) -> Losses:
            losses = super().forward(signals)
            heard.add((signals.student["weak"].dtype, losses.total.dtype))
            return losses

    monkeypatch.setattr(loop, "build_objective", lambda *_: Noting(CeConfig()))
    student = Watched()
    ended = run(Course(student, CeConfig(), BF16, 3), bench_on(device))
    assert student.seen[True] == {torch.bfloat16}
    assert heard == {(torch.float32, torch.float32)}
    assert {value.dtype for value in student.parameters()} == {torch.float32}
    assert all(value.isfinite().all() for value in ended.weights.values())


def test_a_student_trained_in_bf16_is_evaluated_in_fp32(device: torch.device) -> None:
    student = Watched()
    train(Course(student, CeConfig(), BF16, 3), bench_on(device), on_epoch=lambda *_: None)
    assert student.seen == {True: {torch.bfloat16}, False: {torch.float32}}


def test_the_table_decides_and_leaves_model_and_random_states_as_they_were(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)  # for a rehearsal on any CPU
    student = resnet().to(device)
    before, states = weights_of(student), random_states(device)
    chosen = by_table(student, device, (1, 8, 8))
    assert str(chosen).endswith(f"(table {TABLE_VERSION})")
    assert by_table(student, device, (1, 8, 8)) == chosen
    assert same_weights(weights_of(student), before)
    assert all(torch.equal(*pair) for pair in zip(random_states(device), states, strict=True))


def random_states(device: torch.device) -> list[Tensor]:
    on_gpu = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *on_gpu]


def test_auto_is_bf16_where_the_table_says_so(
    device: torch.device, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)  # for a rehearsal on any CPU
    spec = WorkbenchSpec(
        data=DataConfig(factory="tests.gpu.compared_courses:noise"),
        views=ViewsConfig(),
        view_seed=1,
        cache_uri=None,
        cache_manifest=None,
        checkpoints=str(tmp_path),
    )
    trial = TrialSpec(
        trial_id="ce-1",
        role=Role.SEARCH,
        objective=CeConfig(),
        student=ModelConfig(name=ModelName.RESNET8, width=16),
        training=TrainingConfig(epochs=1, batch_size=20),
        seed=3,
    )
    asked: list[str] = []

    def agree(key: str, find: object) -> str:
        asked.append(key)
        assert callable(find)
        return str(find())

    warm = WarmState(device, agree=agree)
    course = warm.course(trial, spec)
    assert [key.partition("/")[0] for key in asked] == ["precision"]
    has_bf16 = device_kind(device) is not DeviceKind.OTHER
    assert course.precision is (TrainingPrecision.BF16 if has_bf16 else TrainingPrecision.FP32)
    told = run(course, warm.workbench(spec)).told
    assert 0 <= told[0]["selection/accuracy"] <= 1
