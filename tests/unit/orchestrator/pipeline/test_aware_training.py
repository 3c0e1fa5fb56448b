"""The champion is trained on for int8: by a job on a slot, once, and refused where it cannot be."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from orchestrator.config.loading import load_experiment
from orchestrator.config.overrides import Overrides
from orchestrator.config.sections.export import AwareConfig, ExportConfig
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.shipped import aware_training
from orchestrator.pipeline.shipped.aware_training import STAGE, aware_spec, aware_stage
from orchestrator.pipeline.stages import Stages
from orchestrator.pipeline.workers import Workers
from orchestrator.records.events import StageEpoch
from orchestrator.records.ledger import Ledger, TrialRecord
from orchestrator.terminal.console import Console
from tests.unit.trainables.training.small_courses import same_weights
from trainables.checkpoint_header import file_metadata
from trainables.config import (
    CeConfig,
    DataConfig,
    DkdConfig,
    ModelConfig,
    ModelName,
    Role,
    TrainingConfig,
    TrialSpec,
    ViewsConfig,
    WorkbenchSpec,
)
from trainables.config.mutual.peers import DmlConfig
from trainables.models.fake_quantised.network import load_fake_quantised
from trainables.models.fake_quantised.points import POINTS
from trainables.slots.job_channel import JobChannel
from trainables.slots.messages import End, Job, Message, TrainJob
from trainables.slots.student_jobs import train_job
from trainables.slots.warm_state import WarmState

EXPERIMENT = """\
name: aware
data: {name: digits, train_limit: 200}
student: {name: convnet, width: 4}
views: {weak: {views: 1, recipe: []}}
space: space.yaml
export: {int8_aware: {epochs: 2, lr_factor: 0.1}}
"""
SPACE = "name: labels\nobjectives: {ce: {}}\ntraining: {lr: {loguniform: [0.01, 0.1]}}\n"
STUDENT = ModelConfig(name=ModelName.CONVNET, width=4)
TRAINING = TrainingConfig.from_plain(
    {"epochs": 8, "batch_size": 40, "lr": 0.1, "schedule": "step", "milestones": [6], "precision": "fp32"}
)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    (tmp_path / "aware.yaml").write_text(EXPERIMENT)
    (tmp_path / "space.yaml").write_text(SPACE)
    loaded = load_experiment(str(tmp_path / "aware.yaml"))
    out, console = tmp_path / "out", Console(out=io.StringIO())
    ledger = Ledger(out)
    yield Run(loaded, out, ledger, Stages(ledger, console), Workers(loaded.config, out, console), console)
    ledger.close()


@pytest.fixture
def bench(run: Run) -> WorkbenchSpec:
    return WorkbenchSpec(
        data=DataConfig.from_plain({"name": "digits", "train_limit": 200}),
        views=ViewsConfig(),
        view_seed=1,
        cache_uri=None,
        cache_manifest=None,
        checkpoints=str(run.out / "students"),
    )


class Slot:
    """Does jobs in this process, and counts them."""

    def __init__(self) -> None:
        self.warm, self.done = WarmState(torch.device("cpu")), list[TrainJob]()

    def do(
        self,
        _broker: object,
        jobs: Sequence[TrainJob],
        on_message: Callable[[Job, Message], None] = lambda *_: None,
        *,
        each_may_fail: bool,
    ) -> dict[str, Message]:
        assert each_may_fail
        ends: dict[str, Message] = {}
        for job in jobs:
            self.done.append(job)

            def send(message: Message, job: TrainJob = job) -> bool:
                on_message(job, message)
                ends[job.job_id] = message
                return True

            train_job(TrainJob.from_plain(job.plain()), self.warm, JobChannel(send, lambda: False))
        return ends


@pytest.fixture
def slot(monkeypatch: pytest.MonkeyPatch) -> Slot:
    slot = Slot()
    monkeypatch.setattr(aware_training, "run_jobs", slot.do)
    monkeypatch.setattr(Workers, "start_slots", lambda _: None)
    monkeypatch.setattr(Workers, "broker", None)
    return slot


def record_of(spec: TrialSpec, checkpoint: str | None) -> TrialRecord:
    return TrialRecord(
        trial=spec.trial_id,
        role=spec.role,
        search="s",
        objective=spec.objective.name,
        parameters={},
        spec=spec.plain(),
        status="completed",
        checkpoint=checkpoint,
    )


@pytest.fixture
def champion(bench: WorkbenchSpec, slot: Slot) -> TrialRecord:
    spec = TrialSpec(
        trial_id="ce-1-seed0",
        role=Role.FINALIST,
        objective=CeConfig(),
        student=STUDENT,
        training=TRAINING,
        seed=3,
    )
    job = TrainJob(workbench=bench, trial=spec)
    end = slot.do(None, [job], each_may_fail=True)[spec.trial_id]
    slot.done.clear()
    return record_of(spec, end.checkpoint)


def test_the_champion_goes_on_from_its_own_weights_and_is_kept_as_it_was_judged(
    run: Run, bench: WorkbenchSpec, slot: Slot, champion: TrialRecord
) -> None:
    found = aware_stage(run, bench, champion)
    assert found is not None
    told = [event for event in run.ledger.events_of(StageEpoch) if event.stage == STAGE]
    assert [event.epoch for event in told] == [1, 2]
    reached = [event.metrics["selection/accuracy"] for event in told]
    path = Path(found["weights"])
    assert path.parent.name.startswith("ce-1-seed0-int8-")
    network = slot.warm.build(STUDENT, bench, seed=99)
    load_fake_quantised(network, path)
    workbench = slot.warm.workbench(bench)
    kept = workbench.evaluate(network, workbench.data.selection, batch_size=512)
    assert kept["accuracy"] == max(reached) == reached[found["best_epoch"] - 1]
    assert max(reached) > 0.5  # a student that began afresh would know nothing after two epochs at a tenth
    assert POINTS in file_metadata(path)
    assert POINTS not in file_metadata(Path(champion.checkpoint or ""))


def test_it_is_trained_once_and_again_when_settings_or_files_changed(
    run: Run, bench: WorkbenchSpec, slot: Slot, champion: TrialRecord
) -> None:
    found = aware_stage(run, bench, champion)
    assert aware_stage(run, bench, champion) == found
    assert len(slot.done) == 1
    assert found is not None
    weights = load_file(found["weights"])
    Path(found["weights"]).unlink()
    assert aware_stage(run, bench, champion) == found
    assert same_weights(load_file(found["weights"]), weights)
    assert len(slot.done) == 2
    assert [e.epoch for e in run.ledger.events_of(StageEpoch)] == [1, 2]  # told once


def test_a_student_that_cannot_be_quantised_is_refused_with_the_reason(
    run: Run, bench: WorkbenchSpec, champion: TrialRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object, jobs: Sequence[TrainJob], *__: object, **___: object) -> dict[str, Message]:
        return {jobs[0].job_id: Message(end=End.FAILED, reason="Strange has no torch.nn.Conv2d")}

    monkeypatch.setattr(aware_training, "run_jobs", refuse)
    found = aware_stage(run, bench, champion)
    assert found is not None
    assert found["refused"] == "Strange has no torch.nn.Conv2d"


def test_a_student_whose_peers_were_not_kept_is_refused_without_a_job(
    run: Run, bench: WorkbenchSpec, slot: Slot
) -> None:
    spec = TrialSpec(
        trial_id="dml-1",
        role=Role.FINALIST,
        objective=DmlConfig(),
        student=STUDENT,
        training=TRAINING,
        seed=3,
        peers=(STUDENT,),
    )
    found = aware_stage(run, bench, record_of(spec, "somewhere"))
    assert found is not None
    assert "only the student was kept" in found["refused"]
    assert slot.done == []


def test_the_course_is_the_champions_as_it_ended() -> None:
    spec = TrialSpec(
        trial_id="dkd-1",
        role=Role.FINALIST,
        objective=DkdConfig(warmup_epochs=20, alpha=2.0),
        student=STUDENT,
        training=TRAINING.with_overrides(epochs=10, warmup_epochs=1, precision="bf16", compile=True),
        seed=3,
    )
    on = aware_spec(spec, AwareConfig(epochs=4, lr_factor=0.01), "dkd-1-int8")
    assert isinstance(on.objective, DkdConfig)
    assert (on.objective.alpha, on.objective.warmup_epochs) == (1.0, 1)  # half of the warm-up was over
    training = on.training
    assert training.epochs == 4
    assert training.lr == pytest.approx(0.001)
    assert (training.schedule, training.milestones, training.warmup_epochs) == ("cosine", (), 0)
    assert (training.precision, training.compile) == ("fp32", False)
    assert (training.batch_size, training.weight_decay) == (40, TRAINING.weight_decay)
    assert on.seed != spec.seed


@pytest.mark.parametrize(
    ("given", "expected"), [(True, AwareConfig()), (False, None), ({"epochs": 3}, AwareConfig(epochs=3))]
)
def test_the_file_may_say_yes_or_how(given: object, expected: AwareConfig | None) -> None:
    config = ExportConfig.from_plain({"int8_aware": given})
    assert config.aware == expected
    assert ExportConfig.from_plain(config.plain()) == config


def test_the_command_asks_for_it_where_the_file_does_not() -> None:
    plain = load_experiment("digits").config
    asked = load_experiment("digits", overrides=Overrides(int8_aware=True)).config
    assert plain.export.aware is None
    assert asked.export.aware == AwareConfig()
    assert Overrides(int8_aware=True).options() == ["--format", "onnx_int8_aware"]
