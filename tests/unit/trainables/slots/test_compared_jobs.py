"""A slot compares the students of a search with what their teacher says of the selection split."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trainables.config import (
    CeConfig,
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
from trainables.config.metrics import AGREEMENT, KL_TO_TEACHER
from trainables.errors import CacheError
from trainables.models.weights import load_weights
from trainables.slots.job_channel import JobChannel
from trainables.slots.messages import Message, TrainJob
from trainables.slots.student_jobs import train_job
from trainables.slots.warm_state import WarmState
from trainables.teacher.selection_answers import answers_in, keep_answers

STUDENT = ModelConfig(name=ModelName.MLP, width=8)


@pytest.fixture(scope="module")
def warm() -> WarmState:
    return WarmState(torch.device("cpu"))


@pytest.fixture
def job(tmp_path: Path, warm: WarmState) -> TrainJob:
    """Of a student that learns from labels alone, as controls do, in a search that hears a teacher."""
    config = DataConfig(name=DataName.DIGITS, train_limit=100)
    data = warm.data(config)
    kept = answers_in(tmp_path / "teacher", teacher="t" * 64, data=data.digest)
    keep_answers(kept, 4 * torch.nn.functional.one_hot(data.selection.labels, 10).float(), data)
    spec = WorkbenchSpec(
        data=config,
        views=ViewsConfig(),
        view_seed=1,
        cache_uri=None,
        cache_manifest=None,
        selection_answers=kept,
        checkpoints=str(tmp_path / "students"),
    )
    trial = TrialSpec(
        trial_id="ce-1",
        role=Role.BASELINE,
        objective=CeConfig(),
        student=STUDENT,
        training=TrainingConfig(epochs=3, batch_size=20),
        seed=3,
    )
    return TrainJob(workbench=spec, trial=trial)


def told(job: TrainJob, warm: WarmState) -> list[Message]:
    messages: list[Message] = []

    def send(message: Message) -> bool:
        messages.append(message)
        return True

    train_job(TrainJob.from_plain(job.plain()), warm, JobChannel(send, lambda: False))
    return messages


@pytest.mark.usefixtures("either_bf16")
def test_each_epoch_is_compared_and_the_end_has_what_the_kept_weights_say(
    job: TrainJob, warm: WarmState
) -> None:
    messages = told(job, warm)
    assert [message.epoch for message in messages] == [1, 2, 3]
    # This teacher is always right, so to agree with it is to be right.
    assert all(m.metrics[AGREEMENT] == m.metrics["selection/accuracy"] for m in messages)
    assert all(m.metrics[KL_TO_TEACHER] > 0 for m in messages)
    end = messages[-1]
    model = warm.build(STUDENT, job.workbench)
    load_weights(model, Path(end.checkpoint or ""))
    figures = warm.workbench(job.workbench).judge(model, batch_size=512)
    assert figures["agreement"] == pytest.approx(end.best[AGREEMENT])
    assert figures["kl_to_teacher"] == pytest.approx(end.best[KL_TO_TEACHER], rel=1e-5)


@pytest.mark.usefixtures("either_bf16")
def test_answers_of_another_teacher_end_the_job_with_the_file_named(job: TrainJob, warm: WarmState) -> None:
    kept = job.workbench.selection_answers
    assert kept is not None
    other = job.workbench.with_overrides(selection_answers=kept.with_overrides(teacher="o" * 64))
    with pytest.raises(CacheError, match=r"selection_answers\.safetensors, cannot be used: it is of another"):
        told(job.with_overrides(workbench=other), warm)
