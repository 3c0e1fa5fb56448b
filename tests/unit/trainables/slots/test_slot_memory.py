from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import nn

from tests.unit.trainables.training.small_courses import CPU
from trainables.config import ModelConfig, ModelName, Role, TrainingConfig, TrialSpec, WorkbenchSpec
from trainables.config.objectives import DmlConfig
from trainables.objectives import DmlObjective
from trainables.signals import Losses, Signals
from trainables.slots.job_channel import JobChannel
from trainables.slots.leases import let_go
from trainables.slots.messages import TrainJob
from trainables.slots.student_jobs import train_job
from trainables.slots.warm_state import WarmState
from trainables.training.learners.learner import Learner


def test_a_failed_job_leaves_nothing_of_its_student_in_memory() -> None:
    """While the error itself is still at hand, as it is where the slot tells of it."""
    students: list[weakref.ref[Any]] = []

    def train() -> None:
        student = nn.Linear(2, 2)
        students.append(weakref.ref(student))
        raise torch.OutOfMemoryError("CUDA out of memory")

    try:
        train()
    except torch.OutOfMemoryError as error:
        assert students[0]() is not None
        let_go(error)
        assert students[0]() is None
        assert "out of memory" in str(error)


def test_a_trial_of_several_networks_leaves_none_of_them_in_memory(
    spec: WorkbenchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory runs out in the second epoch, when each optimiser has its momentum."""
    networks: list[weakref.ref[Any]] = []
    optimisers: list[weakref.ref[Any]] = []
    optimise, forward = Learner.optimise, DmlObjective.forward

    def noted(learner: Learner, others: nn.Module, **options: Any) -> None:
        optimise(learner, others, **options)
        networks.append(weakref.ref(learner.model))
        optimisers.append(weakref.ref(learner.optimizer))

    def runs_out(objective: DmlObjective, signals: Signals) -> Losses:
        if signals.epoch == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(objective, signals)

    monkeypatch.setattr(Learner, "optimise", noted)
    monkeypatch.setattr(DmlObjective, "forward", runs_out)
    student, warm = ModelConfig(name=ModelName.MLP, width=8), WarmState(CPU)
    trial = TrialSpec(
        trial_id="dml-1",
        role=Role.SEARCH,
        objective=DmlConfig(peers=3),
        student=student,
        training=TrainingConfig(epochs=2, batch_size=20, precision="fp32"),
        seed=3,
        peers=(student, student),
    )
    job, channel = TrainJob(workbench=spec, trial=trial), JobChannel(lambda _: True, lambda: False)
    try:
        train_job(job, warm, channel)
    except torch.OutOfMemoryError as error:
        assert [one() is not None for one in (*networks[-3:], *optimisers[-3:])] == [True] * 6
        let_go(error)
        assert [one() for one in (*networks, *optimisers)] == [None] * 2 * len(networks)
    else:
        pytest.fail("the training did not run out of memory")
