"""What a slot tells of the figure that ranks: with every epoch, and of kept weights on any split."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trainables.config import (
    CeConfig,
    Combine,
    DataConfig,
    DataName,
    KeptEnsemble,
    KeptNetwork,
    KeptTeacher,
    ModelConfig,
    ModelName,
    Role,
    Split,
    TrainingConfig,
    TrialSpec,
    ViewsConfig,
    WorkbenchSpec,
)
from trainables.config.metrics import RankBy
from trainables.data import load_test
from trainables.errors import CacheError
from trainables.models.weights import load_weights
from trainables.slots.job_channel import JobChannel
from trainables.slots.messages import EvaluateJob, Message, TrainJob
from trainables.slots.student_jobs import train_job
from trainables.slots.warm_state import WarmState
from trainables.slots.worker import evaluate_job

DATA = DataConfig(name=DataName.DIGITS, train_limit=100)
STUDENT = ModelConfig(name=ModelName.MLP, width=8)
KNN = RankBy.KNN_ACCURACY
TRIAL = TrialSpec(
    trial_id="ce-1",
    role=Role.SEARCH,
    objective=CeConfig(),
    student=STUDENT,
    training=TrainingConfig(epochs=3, batch_size=20),
    seed=3,
    rank_by=KNN,
)


@pytest.fixture(scope="module")
def warm() -> WarmState:
    return WarmState(torch.device("cpu"))


@pytest.fixture
def spec(tmp_path: Path) -> WorkbenchSpec:
    return WorkbenchSpec(
        data=DATA,
        views=ViewsConfig(),
        view_seed=1,
        cache_uri=None,
        cache_manifest=None,
        checkpoints=str(tmp_path / "students"),
    )


def channel(messages: list[Message]) -> JobChannel:
    def send(message: Message) -> bool:
        messages.append(message)
        return True

    return JobChannel(send, lambda: False)


def trained(warm: WarmState, spec: WorkbenchSpec) -> Message:
    messages: list[Message] = []
    train_job(TrainJob(workbench=spec, trial=TRIAL), warm, channel(messages))
    assert all(KNN.metric in message.metrics for message in messages)
    return messages[-1]


def evaluated(warm: WarmState, spec: WorkbenchSpec, network: KeptTeacher, by: RankBy) -> dict[str, float]:
    messages: list[Message] = []
    job = EvaluateJob(job_id="e", workbench=spec, network=network, split=Split.TEST, rank_by=by)
    evaluate_job(EvaluateJob.from_plain(job.plain()), warm, channel(messages))
    return messages[0].metrics


@pytest.mark.usefixtures("either_bf16")
def test_a_student_is_tested_by_the_figure_that_ranked_it(warm: WarmState, spec: WorkbenchSpec) -> None:
    end = trained(warm, spec)
    assert end.best[KNN.metric] == max(end.best[KNN.metric], end.metrics[KNN.metric])
    network = KeptNetwork(model=STUDENT, weights=end.checkpoint or "")
    model = warm.build(STUDENT, spec)
    load_weights(model, Path(end.checkpoint or ""))
    for by in RankBy:
        found = evaluated(warm, spec, network, by)
        expected = warm.workbench(spec).features_worth(model, by, load_test(DATA), batch_size=512)
        assert "test/accuracy" in found
        named = {figure.value: f"test/{figure}" for figure in RankBy if figure.is_of_features}
        assert {name: found[key] for name, key in named.items() if key in found} == expected


@pytest.mark.usefixtures("either_bf16")
def test_a_teacher_without_such_features_is_tested_all_the_same(
    warm: WarmState, spec: WorkbenchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = KeptNetwork(model=STUDENT, weights=trained(warm, spec).checkpoint or "")
    several = KeptEnsemble(members=(network, network), shares=(0.5, 0.5), combine=Combine.LOGITS)
    found = evaluated(warm, spec, several, KNN)
    assert "test/accuracy" in found
    assert "test/knn_accuracy" not in found
    monkeypatch.setattr("trainables.models.features.search.classifier_of", _none)
    found = evaluated(warm, spec, network, KNN)
    assert "test/accuracy" in found
    assert "test/knn_accuracy" not in found


def _none(*_: object) -> None:
    raise CacheError("no linear layer")


def test_jobs_that_are_ranked_by_accuracy_keep_the_digests_that_they_had(spec: WorkbenchSpec) -> None:
    usual = TRIAL.with_overrides(rank_by="accuracy")
    assert "rank_by" not in usual.plain()
    assert TRIAL.plain()["rank_by"] == "knn_accuracy"
    assert TrialSpec.from_plain(TRIAL.plain()) == TRIAL
    network = KeptNetwork(model=STUDENT, weights="w")
    job = EvaluateJob(job_id="e", workbench=spec, network=network, split=Split.TEST)
    assert "rank_by" not in job.plain()
