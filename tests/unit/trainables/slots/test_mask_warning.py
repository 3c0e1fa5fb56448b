"""The warning about masks that keep under 1 % of the samples: what it says, and who says it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from trainables.config import (
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
from trainables.config.objectives import CrldConfig, ZipfConfig
from trainables.slots.job_channel import JobChannel
from trainables.slots.mask_warning import mask_warning
from trainables.slots.messages import Message, TrainJob
from trainables.slots.student_jobs import train_job
from trainables.slots.warm_state import WarmState

CRLD = TrialSpec(
    trial_id="crld-1",
    role=Role.SEARCH,
    objective=CrldConfig(),
    student=ModelConfig(name=ModelName.MLP),
    training=TrainingConfig(epochs=5),
    seed=3,
)


def test_the_warning_names_the_student_and_the_masks_that_kept_less_than_one_in_a_hundred() -> None:
    metrics = {"train/kept_weak": 0.0012, "train/kept_strong": 0.5, "train/loss": 0.0, "selection/kept": 0.0}
    warning = mask_warning(CRLD, Message(epoch=3, metrics=metrics))
    assert warning is not None
    assert warning.startswith("crld-1: crld kept under 1 % of the samples in epoch 3 (kept_weak 0.12%): ")


@pytest.mark.parametrize("kept", [0.01, 1.0])
def test_a_mask_that_keeps_one_in_a_hundred_is_passed_over(kept: float) -> None:
    metrics = {"train/kept_weak": kept, "train/loss": 0.0}
    assert mask_warning(CRLD, Message(epoch=3, metrics=metrics)) is None


@pytest.mark.usefixtures("either_bf16")
def test_the_slots_log_tells_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("trainables.slots.mask_warning.FEW", 1.1)
    workbench = WorkbenchSpec(
        data=DataConfig(name=DataName.DIGITS, train_limit=40),
        views=ViewsConfig(),
        view_seed=1,
        cache_uri=None,
        cache_manifest=None,
        checkpoints=str(tmp_path),
    )
    trial = TrialSpec(
        trial_id="zipf-1",
        role=Role.SEARCH,
        objective=ZipfConfig(correct_only=True),
        student=ModelConfig(name=ModelName.CONVNET, width=2),
        training=TrainingConfig(epochs=1, batch_size=20),
        seed=3,
    )
    with caplog.at_level(logging.WARNING, logger="trainables.slots.student_jobs"):
        train_job(
            TrainJob(workbench=workbench, trial=trial),
            WarmState(torch.device("cpu")),
            JobChannel(lambda _: True, bool),
        )
    said = [record.message for record in caplog.records if record.name == "trainables.slots.student_jobs"]
    assert [line.split(" (")[0] for line in said] == ["zipf-1: zipf kept under 1 % of the samples in epoch 1"]
