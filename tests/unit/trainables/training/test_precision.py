"""Which precision is chosen, that it is obeyed where it should be, and that it stays what it was."""

from __future__ import annotations

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
from trainables.slots import agreed_measurements
from trainables.slots.warm_state import WarmState
from trainables.training import loop
from trainables.training.checkpoints import CheckpointFolder
from trainables.training.loop import Course, train
from trainables.training.precision import cpu_has_bf16, has_fast_bf16, measure_precision

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


def clock_of(seconds: dict[str, float]) -> tuple[Callable[[], float], Callable[[str], None]]:
    """A clock that stands still unless something is said to take its time."""
    spent_s: list[float] = []
    return lambda: sum(spent_s), lambda what: spent_s.append(seconds[what])


class Timed(nn.Module):
    """A network that takes as long as it is told, by the type in which its layer computes."""

    def __init__(self, spend: Callable[[str], None]) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self._spend = spend

    def __deepcopy__(self, memo: dict[int, Any]) -> Timed:
        return self

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(images.flatten(1))
        self._spend("bf16" if logits.dtype is torch.bfloat16 else "fp32")
        return logits


@pytest.mark.parametrize(
    ("fp32_s", "bf16_s", "choice"),
    [
        (3.0, 1.0, TrainingPrecision.BF16),
        (1.15, 1.0, TrainingPrecision.BF16),
        (1.14, 1.0, TrainingPrecision.FP32),
        (1.0, 1.0, TrainingPrecision.FP32),
        (1.0, 9.0, TrainingPrecision.FP32),
    ],
)
def test_bf16_is_taken_where_it_is_clearly_faster(
    fp32_s: float, bf16_s: float, choice: TrainingPrecision
) -> None:
    clock, spend = clock_of({"fp32": fp32_s, "bf16": bf16_s})
    figures = measure_precision(Timed(spend), batch_size=2, input_shape=(1, 2, 2), device=CPU, clock=clock)
    assert (figures.fp32_s, figures.bf16_s) == pytest.approx((fp32_s, bf16_s))
    assert figures.choice is choice


def test_measuring_leaves_model_and_random_state_as_they_were() -> None:
    student = small_student()
    before, state = weights_of(student), torch.get_rng_state()
    figures = measure_precision(student, batch_size=4, input_shape=(1, 8, 8), device=CPU)
    assert 0 < figures.fp32_s < 10
    assert same_weights(weights_of(student), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in student.parameters())


class OnlyFp32(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(images.flatten(1))
        if logits.dtype is not torch.float32:
            raise NotImplementedError("no kernel for BFloat16")
        return logits


def test_a_network_that_fails_in_bf16_trains_in_fp32() -> None:
    figures = measure_precision(OnlyFp32(), batch_size=4, input_shape=(1, 8, 8), device=CPU)
    assert figures.bf16_s == float("inf")
    assert figures.choice is TrainingPrecision.FP32


def test_a_device_that_is_neither_cpu_nor_cuda_is_not_measured() -> None:
    assert not has_fast_bf16(torch.device("meta"))


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
    ("training", "precision", "expected"),
    [
        (SHORT, TrainingPrecision.AUTO, torch.float32),
        (BF16, TrainingPrecision.AUTO, torch.bfloat16),
        (SHORT, TrainingPrecision.BF16, torch.bfloat16),
        (BF16, TrainingPrecision.FP32, torch.float32),
    ],
    ids=["auto is fp32", "the recipe's", "auto resolved", "the course's word counts"],
)
def test_a_student_computes_in_its_precision_and_is_evaluated_in_fp32(
    training: TrainingConfig, precision: TrainingPrecision, expected: torch.dtype
) -> None:
    student = Watched()
    train(Course(student, CeConfig(), training, 3, precision), small_workbench(), on_epoch=lambda *_: None)
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
        student=ModelConfig(name=ModelName.MLP, width=8),
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


def test_a_student_trains_in_bf16_where_the_processor_is_faster_with_it(
    spec: WorkbenchSpec, either_bf16: bool
) -> None:
    expected = TrainingPrecision.BF16 if either_bf16 else TrainingPrecision.FP32
    assert WarmState(CPU).course(trial(), spec).precision is expected


@pytest.fixture
def _bf16_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreed_measurements, "has_fast_bf16", lambda _: True)


@pytest.mark.usefixtures("_bf16_hardware")
def test_a_choice_is_measured_once_for_a_shape_and_counts_for_all_slots(spec: WorkbenchSpec) -> None:
    board = Board()
    one, other = WarmState(CPU, agree=board.agree), WarmState(CPU, agree=board.agree)
    chosen = {warm.course(trial(), spec).precision for warm in (one, one, other)}
    assert chosen == {TrainingPrecision(board.found[0])}
    assert len(board.found) == 1
    one.course(trial(batch_size=10), spec)
    one.course(trial(lr=0.01), spec)
    assert len(board.found) == 2
    assert len(board.values) == 2


@pytest.mark.usefixtures("_bf16_hardware")
@pytest.mark.parametrize("said", ["fp32", "bf16"])
def test_what_was_said_first_counts_whatever_this_slot_would_find(spec: WorkbenchSpec, said: str) -> None:
    warm = WarmState(CPU, agree=lambda _key, _find: said)
    assert warm.course(trial(), spec).precision == said


@pytest.mark.usefixtures("_bf16_hardware")
def test_a_precision_that_the_recipe_names_is_neither_measured_nor_agreed_on(spec: WorkbenchSpec) -> None:
    board = Board()
    course = WarmState(CPU, agree=board.agree).course(trial(precision="bf16"), spec)
    assert course.precision is TrainingPrecision.BF16
    assert board.values == {}


def test_hardware_without_bf16_trains_in_fp32_at_once(
    spec: WorkbenchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreed_measurements, "has_fast_bf16", lambda _: False)
    board = Board()
    assert WarmState(CPU, agree=board.agree).course(trial(), spec).precision is TrainingPrecision.FP32
    assert board.values == {}
