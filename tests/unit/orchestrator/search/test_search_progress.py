"""What a search tells of a mask that keeps under 1 % of the samples."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from orchestrator.search.progress import SearchProgress, SlotWatch
from orchestrator.search.progress_table import SearchBoard
from trainables.config import (
    CrldConfig,
    DataConfig,
    DataName,
    ModelConfig,
    ModelName,
    Role,
    TrainingConfig,
    TrialSpec,
    ViewsConfig,
    WorkbenchSpec,
)
from trainables.slots.messages import Message, TrainJob


@dataclass
class Trial:
    trial_id: str
    status: str = "RUNNING"


def job(name: str) -> TrainJob:
    workbench = WorkbenchSpec(
        data=DataConfig(name=DataName.DIGITS),
        views=ViewsConfig(),
        view_seed=1,
        cache_uri=None,
        cache_manifest=None,
        checkpoints="students",
    )
    trial = TrialSpec(
        trial_id=name,
        role=Role.SEARCH,
        objective=CrldConfig(),
        student=ModelConfig(name=ModelName.MLP),
        training=TrainingConfig(epochs=10),
        seed=3,
    )
    return TrainJob(workbench=workbench, trial=trial)


def told(kept: float, epoch: int) -> Message:
    return Message(epoch=epoch, metrics={"train/kept_weak": kept, "selection/accuracy": 0.5})


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def progress(said: list[str]) -> SearchProgress:
    board = SearchBoard(trials=3, epochs=10, slots=1)
    return SearchProgress(board, SlotWatch(None), lambda: None, said.append)


def test_a_mask_that_keeps_next_to_nothing_is_told_once_per_student(
    progress: SearchProgress, said: list[str]
) -> None:
    progress.started(Trial("t1"), job("crld-1"))
    progress.started(Trial("t2"), job("crld-2"))
    for epoch in (1, 2, 3):
        progress.reported("t1", told(0.002, epoch))
        progress.reported("t2", told(0.5, epoch))
    progress.reported("t2", told(0.0, 4))
    assert [line.split("): ")[0] for line in said] == [
        "crld-1: crld kept under 1 % of the samples in epoch 1 (kept_weak 0.20%",
        "crld-2: crld kept under 1 % of the samples in epoch 4 (kept_weak 0.00%",
    ]


def test_a_proposal_that_becomes_a_fork_is_another_student(progress: SearchProgress, said: list[str]) -> None:
    for name in ("crld-1", "crld-2"):
        progress.started(Trial("t1"), job(name))
        progress.reported("t1", told(0.0, 1))
    assert [line.split(":")[0] for line in said] == ["crld-1", "crld-2"]
