"""Which precision is chosen, that it is obeyed where it should be, and that it stays what it was."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.unit.trainables.training.small_courses import (
    CPU,
    SHORT,
    same_weights,
    small_course,
    small_student,
    small_workbench,
    weights_of,
)
from trainables.config import (
    CeConfig,
    DataConfig,
    DataName,
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
from trainables.training.precision import (
    TABLE,
    TABLE_VERSION,
    Chosen,
    DeviceKind,
    by_table,
    cpu_has_bf16,
    device_kind,
)
from trainables.training.progress.checkpoints import CheckpointFolder

pytestmark = pytest.mark.usefixtures("one_thread")

BF16 = SHORT.with_overrides(precision=TrainingPrecision.BF16)
DATA = DataConfig(name=DataName.DIGITS, train_limit=60)


class Watched(nn.Module):
    """Notes in which type its first layer computes, in training and in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small_student()
        self.seen: dict[bool, set[torch.dtype]] = {True: set(), False: set()}

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.inner[0](images)  # type: ignore[index]
        self.seen[self.training].add(maps.dtype)
        logits: Tensor = self.inner[1:](maps)  # type: ignore[index]
        return logits


def conv(channels: int, groups: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, channels, 3, groups=groups), nn.Flatten(), nn.LazyLinear(3))


def linear(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs), nn.Linear(outputs, 3))


@pytest.mark.parametrize(
    ("network", "input_shape", "on_cpu", "on_gpu"),
    [
        (lambda: conv(16), (16, 4, 4), "bf16", "bf16"),
        (lambda: conv(15), (15, 4, 4), "fp32", "bf16"),
        (lambda: conv(7), (7, 4, 4), "fp32", "fp32"),
        (lambda: nn.Sequential(nn.Conv2d(32, 32, 1), conv(32, groups=32)), (32, 4, 4), "fp32", "bf16"),
        (lambda: linear(1024, 1024), (1, 32, 32), "bf16", "bf16"),
        (lambda: linear(256, 256), (1, 16, 16), "fp32", "bf16"),
        (lambda: linear(64, 16), (1, 8, 8), "fp32", "fp32"),
    ],
    ids=["wide", "narrow on a CPU", "narrow", "in groups", "large", "middling", "small"],
)
def test_the_table_decides_by_device_and_layers(
    network: Callable[[], nn.Module],
    input_shape: tuple[int, int, int],
    on_cpu: str,
    on_gpu: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = {DeviceKind.CPU_BF16: on_cpu, DeviceKind.CUDA_BF16: on_gpu, DeviceKind.OTHER: "fp32"}
    model = network()
    model(torch.zeros(2, *input_shape))  # the lazy layer learns its size
    for kind, precision_of_it in expected.items():
        monkeypatch.setattr(precision, "device_kind", lambda _, kind=kind: kind)
        assert str(by_table(model, CPU, input_shape)) == f"{precision_of_it} (table {TABLE_VERSION})"


def test_what_the_table_says_does_not_change_without_its_version() -> None:
    """A changed row would train the same file otherwise: raise TABLE_VERSION, and write it here."""
    rows = {
        kind.value: (row.least_channels, row.least_weights, row.grouped_too) for kind, row in TABLE.items()
    }
    assert (TABLE_VERSION, rows) == (
        1,
        {"GPU with bf16": (8, 65_536, True), "CPU with bf16": (16, 1_048_576, False)},
    )


def test_no_clock_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("perf_counter", "monotonic", "time", "process_time"):
        monkeypatch.setattr(time, name, lambda: pytest.fail("a stopwatch decides"))
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    assert by_table(conv_student(), CPU, (1, 8, 8)).precision is TrainingPrecision.BF16


def conv_student() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 16, 3), nn.Conv2d(16, 16, 3), nn.Flatten(), nn.Linear(256, 3))


def test_choosing_leaves_model_and_random_state_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    student = conv_student()
    before, state = weights_of(student), torch.get_rng_state()
    by_table(student, CPU, (1, 8, 8))
    assert same_weights(weights_of(student), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in student.parameters())


class OnlyFp32(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4096, 256)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(images.flatten(1))
        if logits.dtype is not torch.float32:
            raise NotImplementedError("no kernel for BFloat16")
        return logits


def test_a_network_that_fails_in_bf16_trains_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    chosen = by_table(OnlyFp32(), CPU, (1, 64, 64))
    assert str(chosen) == f"fp32 (table {TABLE_VERSION}; it fails in bf16)"


@pytest.mark.parametrize("text", ["bf16 (table 1)", "fp32 (table 1; it fails in bf16)", "fp32 (asked for)"])
def test_a_choice_is_read_as_it_was_written(text: str) -> None:
    assert str(Chosen.read(text)) == text


def test_an_agreement_of_an_earlier_version_was_measured() -> None:
    assert str(Chosen.read("bf16")) == "bf16 (measured by an earlier version)"


def test_a_device_that_is_neither_cpu_nor_cuda_is_of_no_kind_in_the_table() -> None:
    assert device_kind(torch.device("meta")) not in TABLE


@pytest.mark.parametrize(
    ("cpu_info", "expected"),
    [
        ("model name\t: bf16 inside\nflags\t\t: fpu avx512f avx512_bf16\n", True),
        ("processor\t: 0\nflags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("flags\t\t: fpu avx512f\nvmx flags\t: ept\n", False),
        ("model name\t: bf16 inside\n", False),
        ("Features\t: fp asimd i8mm bf16\n", True),
        ("Features\t: fp asimd sve svebf16\n", True),
        ("Features\t: fp asimd\n", False),
        (None, False),
    ],
)
def test_a_processor_has_bf16_where_linux_lists_it(
    tmp_path: Path, cpu_info: str | None, expected: bool
) -> None:
    listing = tmp_path / "cpuinfo"
    if cpu_info is not None:
        listing.write_text(cpu_info)
    assert cpu_has_bf16(listing) is expected


@pytest.mark.parametrize(
    ("training", "wanted", "expected"),
    [
        (SHORT, TrainingPrecision.AUTO, torch.float32),
        (BF16, TrainingPrecision.AUTO, torch.bfloat16),
        (SHORT, TrainingPrecision.BF16, torch.bfloat16),
        (BF16, TrainingPrecision.FP32, torch.float32),
    ],
    ids=["auto is fp32", "the recipe's", "auto resolved", "the course's word counts"],
)
def test_a_student_computes_in_its_precision_and_is_evaluated_in_fp32(
    training: TrainingConfig, wanted: TrainingPrecision, expected: torch.dtype
) -> None:
    student = Watched()
    train(Course(student, CeConfig(), training, 3, wanted), small_workbench(), on_epoch=lambda *_: None)
    assert student.seen == {True: {expected}, False: {torch.float32}}
    assert {value.dtype for value in student.parameters()} == {torch.float32}


def test_the_objective_is_given_fp32_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[tuple[torch.dtype, torch.dtype]] = set()

    class Noting(CeObjective):
        def forward(self, signals: Signals) -> Losses:
            losses = super().forward(signals)
            seen.add((signals.student["weak"].dtype, losses.total.dtype))
            return losses

    monkeypatch.setattr(loop, "build_objective", lambda *_: Noting(CeConfig()))
    train(small_course(BF16), small_workbench(), on_epoch=lambda *_: None)
    assert seen == {(torch.float32, torch.float32)}


@pytest.mark.parametrize("dies_in", [3, 5])
def test_a_course_in_bf16_that_was_killed_goes_on_to_the_same_end_on_any_device(
    tmp_path: Path, dies_in: int
) -> None:
    """The device of the second attempt would choose fp32; the state says in which precision it began."""
    whole = small_course(BF16)
    train(whole, small_workbench(), on_epoch=lambda *_: None)

    def dies(epoch: int, _: dict[str, float]) -> None:
        if epoch == dies_in:
            raise ConnectionError

    files = CheckpointFolder(tmp_path, spec_digest="a")
    with pytest.raises(ConnectionError):
        train(small_course(BF16), small_workbench(), on_epoch=dies, files=files)
    again = Course(small_student(), CeConfig(), SHORT, 3, TrainingPrecision.FP32)
    train(again, small_workbench(), on_epoch=lambda *_: None, files=files)
    assert same_weights(weights_of(again.model), weights_of(whole.model))


@pytest.fixture
def spec(tmp_path: Path) -> WorkbenchSpec:
    return WorkbenchSpec(
        data=DATA,
        views=ViewsConfig(),
        view_seed=1,
        cache_uri=None,
        cache_manifest=None,
        checkpoints=str(tmp_path),
    )


def trial(**training: Any) -> TrialSpec:
    return TrialSpec(
        trial_id="ce-1",
        role=Role.SEARCH,
        objective=CeConfig(),
        student=ModelConfig(name=ModelName.RESNET8, width=16),
        training=TrainingConfig(epochs=1, batch_size=20).with_overrides(**training),
        seed=3,
    )


class Board:
    """What slots agree on, and how often one of them had to find a value."""

    def __init__(self, **known: str) -> None:
        self.values: dict[str, str] = dict(known)
        self.found: list[str] = []

    def agree(self, key: str, find: Callable[[], str]) -> str:
        if key not in self.values:
            self.found.append(find())
        return self.values.setdefault(key, self.found[-1] if self.found else "")


def test_a_student_trains_in_bf16_where_the_table_says_so(spec: WorkbenchSpec, either_bf16: bool) -> None:
    course = WarmState(CPU).course(trial(), spec)
    expected = TrainingPrecision.BF16 if either_bf16 else TrainingPrecision.FP32
    assert (course.precision, course.precision_by) == (expected, f"table {TABLE_VERSION}")


@pytest.mark.usefixtures("either_bf16")
def test_a_choice_is_made_once_for_a_shape_and_kept_for_all_slots(spec: WorkbenchSpec) -> None:
    board = Board()
    one, other = WarmState(CPU, agree=board.agree), WarmState(CPU, agree=board.agree)
    chosen = {warm.course(trial(), spec).precision for warm in (one, one, other)}
    assert chosen == {Chosen.read(board.found[0]).precision}
    assert len(board.found) == 1
    one.course(trial(batch_size=10), spec)
    one.course(trial(lr=0.01), spec)
    assert len(board.found) == 2
    assert len(board.values) == 2


@pytest.mark.parametrize("said", ["fp32", "bf16", "bf16 (table 0)"])
def test_what_was_agreed_on_before_counts_whatever_the_table_says(spec: WorkbenchSpec, said: str) -> None:
    warm = WarmState(CPU, agree=lambda _key, _find: said)
    assert warm.course(trial(), spec).precision == said[:4]


def test_a_precision_that_the_recipe_names_is_not_agreed_on(spec: WorkbenchSpec) -> None:
    board = Board()
    course = WarmState(CPU, agree=board.agree).course(trial(precision="bf16"), spec)
    assert (course.precision, course.precision_by) == (TrainingPrecision.BF16, "asked for")
    assert board.values == {}
