"""What a student costs, told with every epoch when the search asks for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.unit.trainables.training.small_courses import CPU, same_weights
from trainables.config import (
    CeConfig,
    Cost,
    KeptNetwork,
    ModelConfig,
    ModelName,
    ObjectiveBase,
    OnlineSpec,
    Role,
    TrainingConfig,
    TrialSpec,
    WorkbenchSpec,
)
from trainables.config.objectives import FitnetConfig, SimregConfig
from trainables.errors import StillhouseError
from trainables.evaluation.profiling import StudentFigures, profile_student
from trainables.models.weights import count_parameters, load_weights, save_weights
from trainables.slots import agreed_measurements
from trainables.slots.job_channel import JobChannel
from trainables.slots.messages import End, Message, TrainJob
from trainables.slots.student_jobs import train_job
from trainables.slots.warm_state import WarmState
from trainables.training.ranks import Solo

NARROW, WIDE = (ModelConfig(name=ModelName.MLP, width=width) for width in (4, 8))
STAGED, TEACHER = (ModelConfig(name=ModelName.RESNET8, width=width) for width in (4, 8))


class Agreements:
    """What slots agreed on: latencies, and precisions where the processor has bf16."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def __call__(self, key: str, find: Callable[[], str]) -> str:
        if key not in self.values:
            self.values[key] = find()
        return self.values[key]

    @property
    def latencies_ms(self) -> list[float]:
        """Those that one of the slots had to measure."""
        return [float(value) for key, value in self.values.items() if key.startswith("latency_ms/")]


def job_of(
    spec: WorkbenchSpec,
    *costs: Cost,
    trial_id: str = "ce-1",
    student: ModelConfig = NARROW,
    objective: ObjectiveBase | None = None,
) -> TrainJob:
    training = TrainingConfig(epochs=3, batch_size=20, checkpoint_every=1)
    trial = TrialSpec(
        trial_id=trial_id,
        role=Role.SEARCH,
        objective=objective or CeConfig(),
        student=student,
        training=training,
        seed=3,
    )
    return TrainJob(workbench=spec, trial=trial, costs=costs)


def told(
    job: TrainJob, warm: WarmState, *, tired_at: int = 99, heard: int = 0, rank: int = 0
) -> list[Message]:
    messages: list[Message] = []

    def send(message: Message) -> bool:
        messages.append(message)
        return True

    channel = JobChannel(send, lambda: len(messages) >= tired_at, heard, Solo(rank=rank))
    train_job(job, warm, channel)
    return messages


@pytest.mark.usefixtures("either_bf16")
def test_costs_are_told_with_every_epoch_and_with_the_best(spec: WorkbenchSpec) -> None:
    agreements = Agreements()
    warm = WarmState(CPU, agree=agreements)
    messages = told(job_of(spec, Cost.PARAMS, Cost.LATENCY_MS), warm)
    (latency_ms,) = agreements.latencies_ms
    costs = {
        "student/params": count_parameters(warm.build(NARROW, spec)),
        "student/latency_ms": latency_ms,
    }
    assert latency_ms > 0
    assert len(messages) == 3
    assert messages[-1].end is End.COMPLETED
    for metrics in (*(message.metrics for message in messages), messages[-1].best):
        assert metrics.items() >= costs.items()


@pytest.mark.usefixtures("either_bf16")
@pytest.mark.parametrize(
    ("objective", "term"), [(SimregConfig(), "simreg"), (FitnetConfig(), "hint")], ids=["simreg", "fitnet"]
)
def test_what_an_objective_trains_beside_the_student_is_neither_counted_nor_timed(
    spec: WorkbenchSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: ObjectiveBase, term: str
) -> None:
    timed: list[set[str]] = []

    def profiled(model: torch.nn.Module, **options: Any) -> StudentFigures:
        timed.append(set(model.state_dict()))
        return profile_student(model, **options)

    monkeypatch.setattr(agreed_measurements, "profile_student", profiled)
    warm, weights = WarmState(CPU), tmp_path / "teacher.safetensors"
    save_weights(warm.build(TEACHER, spec, seed=9), weights, {})
    teacher = OnlineSpec(network=KeptNetwork(model=TEACHER, weights=str(weights)), batch_size=20)
    taught = spec.with_overrides(online=teacher)
    job = job_of(taught, Cost.PARAMS, Cost.LATENCY_MS, student=STAGED, objective=objective)
    messages = told(job, warm)
    assert messages[-1].metrics[f"train/{term}"] > 0
    bare = warm.build(STAGED, spec)
    assert [message.metrics["student/params"] for message in messages] == [count_parameters(bare)] * 3
    assert timed == [set(bare.state_dict())]
    assert set(load_file(messages[-1].checkpoint or "")) == set(bare.state_dict())


@pytest.mark.usefixtures("either_bf16")
def test_a_student_of_which_no_costs_are_wanted_tells_none_and_trains_the_same(spec: WorkbenchSpec) -> None:
    weights = []
    for trial_id, costs in (("with", [Cost.LATENCY_MS]), ("without", [])):
        job = job_of(spec, *costs, trial_id=trial_id)
        last = told(job, WarmState(CPU))[-1]
        assert any(name.startswith("student/") for name in last.metrics) == bool(costs)
        model = WarmState(CPU).build(NARROW, spec)
        load_weights(model, Path(last.checkpoint or ""))
        weights.append(model.state_dict())
    assert same_weights(*weights)


def test_latency_is_measured_once_for_each_architecture_whichever_slot_asks(spec: WorkbenchSpec) -> None:
    agreements = Agreements()
    slots = [WarmState(CPU, agree=agreements) for _ in range(2)]
    narrow = [slot.costs(NARROW, spec, [Cost.LATENCY_MS]) for slot in slots for _ in range(2)]
    assert all(costs == narrow[0] for costs in narrow)
    assert len(agreements.latencies_ms) == 1
    slots[1].costs(WIDE, spec, [Cost.LATENCY_MS])
    slots[1].costs(NARROW, spec.with_overrides(view_seed=2), [Cost.LATENCY_MS, Cost.PARAMS])
    assert len(agreements.latencies_ms) == 2


@pytest.mark.usefixtures("either_bf16")
def test_a_trial_that_goes_on_elsewhere_tells_the_costs_that_were_agreed(spec: WorkbenchSpec) -> None:
    agreements = Agreements()
    job = job_of(spec, Cost.LATENCY_MS)
    first = told(job, WarmState(CPU, agree=agreements), tired_at=1)
    rest = told(job, WarmState(CPU, agree=agreements), heard=1)
    assert [message.epoch for message in rest] == [2, 3]
    (latency_ms,) = agreements.latencies_ms
    assert {m.metrics["student/latency_ms"] for m in (first[0], *rest)} == {latency_ms}


def test_measuring_leaves_the_random_state_as_it_was(spec: WorkbenchSpec) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    WarmState(CPU).costs(NARROW, spec, [Cost.LATENCY_MS, Cost.PARAMS])
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.usefixtures("either_bf16")
def test_only_the_first_rank_measures(spec: WorkbenchSpec) -> None:
    agreements = Agreements()
    told(job_of(spec, Cost.LATENCY_MS), WarmState(CPU, agree=agreements), rank=1)
    assert not agreements.latencies_ms


def test_a_student_that_takes_no_such_images_says_so(spec: WorkbenchSpec) -> None:
    student = ModelConfig(factory="tests.unit.trainables.slots.test_costs:misfit")
    with pytest.raises(StillhouseError, match=r"cannot take an input of shape \(1, 8, 8\)"):
        WarmState(CPU).costs(student, spec, [Cost.LATENCY_MS])


def misfit(n_classes: int) -> torch.nn.Module:
    return torch.nn.Linear(5, n_classes)
