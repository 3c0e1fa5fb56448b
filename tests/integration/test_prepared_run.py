"""A whole run of objectives that the teacher is prepared for; killed in a preparation, it goes on."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from mlflow import MlflowClient
from mlflow.entities import Run

from orchestrator.config.loading import load_experiment
from orchestrator.pipeline.context import quiet_run
from orchestrator.pipeline.teachers.preparation import preparation_request
from orchestrator.records.events import StageEpoch, StageEvent
from orchestrator.records.ledger import Ledger
from orchestrator.terminal.console import Console
from orchestrator.tracking.store import prepare_mlflow
from tests.integration.command_line_runs import Task, finish
from trainables.cache.format.manifest import read_manifest
from trainables.cache.format.storage import open_place
from trainables.config import ModelConfig, ModelName, Role
from trainables.config.objective_base import Preparation
from trainables.models import build_model
from trainables.training.prepare_teacher import prepare_teacher
from trainables.training.train_teacher import TeacherFacts

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.slow]

PATIENCE_S = 900.0
EPOCHS = 10
FEW = 2
"""Epochs of a preparation after which the driver is killed, early enough that its worker is still busy."""
EXPERIMENT = f"""\
name: prepared
data: {{name: digits, train_limit: 300}}
teacher:
  model: {{factory: "tests.integration.fault_students:hesitant"}}
  training: {{epochs: 3, lr: 0.1}}
  preparation: {{epochs: {EPOCHS}, lr: 0.05, batch_size: 32, checkpoint_every: 1, precision: fp32}}
student: {{name: resnet8, width: 4}}
views: {{weak: {{views: 1, recipe: []}}}}
training: {{epochs: 2, batch_size: 32, precision: fp32}}
space: space.yaml
budget: {{trials: 2, finalists: 1, seeds: 1}}
cluster: {{slots: 1, gpus_per_worker: 0}}
"""
SPACE = """\
name: turned
objectives: {sskd: {}, hsakd: {}}
search: {algorithm: grid}
scheduler: {name: fifo}
"""
KINDS = tuple(Preparation)
KILLED_IN = KINDS[-1]
CACHE = "cache"


def stage_of(kind: Preparation) -> str:
    return f"preparation {kind}"


@dataclass(frozen=True)
class Done:
    """A folder of output, what it held when the first run was killed, and what the second said."""

    task: Task
    kept: list[str]
    """Files of the preparation in which the run was killed."""
    told: int
    """Events that the ledger had then."""
    last: subprocess.CompletedProcess[str]

    @property
    def out(self) -> Path:
        return self.task.out

    @property
    def ledger(self) -> Ledger:
        ledger = Ledger(self.out)
        ledger.close()
        return ledger

    @property
    def stages(self) -> list[StageEvent]:
        return self.ledger.events_of(StageEvent)

    @property
    def place(self) -> dict[str, Any]:
        """Where the record is."""
        return dict(json.loads(self.last.stdout)["mlflow"])

    def found(self, stage: str) -> dict[str, Any]:
        """What a stage found, the one time that it was finished."""
        (found,) = (
            event.found for event in self.stages if (event.stage, event.status) == (stage, "finished")
        )
        return found

    def epochs(self, kind: Preparation, *, since: int = 0) -> list[int]:
        """Those that the ledger has of a preparation, from an event on."""
        events = (event for event in self.ledger.events(since) if isinstance(event, StageEpoch))
        return [event.epoch for event in events if event.stage == stage_of(kind)]

    def uninterrupted(self, kind: Preparation, folder: Path) -> str:
        """The digest of the same preparation, made in this process from its first epoch to its last."""
        loaded = load_experiment(str(self.task.folder / "task.yaml"))
        with quiet_run(loaded, Console(out=io.StringIO())) as run:
            teacher = TeacherFacts.from_plain(self.found("teacher"))
            request, _ = preparation_request(run, teacher, kind)
        model = request.network.model
        assert model is not None
        quick = request.network.with_overrides(model=model.with_overrides(arguments={"seconds": 0.0}))
        return prepare_teacher(
            request.with_overrides(network=quick, folder=str(folder)), lambda *_: None
        ).sha256


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("prepared")
    task = Task(folder, folder / "out" / "prepared", experiment=EXPERIMENT, space=SPACE)
    killed = task.start()
    task.kill_when(killed, partial(is_well_begun, KILLED_IN))
    finish(killed)
    (place,) = (task.out / "teacher" / "prepared").glob(f"{KILLED_IN}-*")
    kept, told = [path.name for path in place.iterdir()], len(task.events())
    last = finish(task.start("--json"), PATIENCE_S)
    assert last.returncode == 0, last.stderr
    return Done(task, kept, told, last)


def is_well_begun(kind: Preparation, events: list[dict[str, Any]]) -> bool:
    told = [e for e in events if e["kind"] == "stage_epoch" and e["stage"] == stage_of(kind)]
    return len(told) >= FEW


@pytest.fixture
def _threads_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_threads_as_before")
@pytest.mark.parametrize("kind", KINDS)
def test_killed_while_it_is_prepared_it_goes_on_to_the_teacher_of_a_run_that_was_not(
    done: Done, tmp_path: Path, kind: Preparation
) -> None:
    if kind != KILLED_IN:
        assert done.epochs(kind) == list(range(1, EPOCHS + 1))
        assert done.epochs(kind, since=done.told) == []
    else:
        assert "last.pt" in done.kept
        assert f"{kind}.safetensors" not in done.kept
        before, after = done.epochs(kind), done.epochs(kind, since=done.told)
        before = before[: len(before) - len(after)]
        assert before == list(range(1, len(before) + 1))
        assert FEW <= len(before) < EPOCHS
        # The epoch that was told and not kept is told again, no other.
        assert after == list(range(after[0], EPOCHS + 1))
        assert after[0] in (before[-1], before[-1] + 1)
    assert done.found(stage_of(kind))["sha256"] == done.uninterrupted(kind, tmp_path)


def test_it_is_prepared_once_before_the_cache_and_told(done: Done) -> None:
    finished = [event.stage for event in done.stages if event.status == "finished"]
    head, branches = (stage_of(kind) for kind in KINDS)
    order = [finished.index(stage) for stage in ("teacher", head, branches, CACHE)]
    assert order == sorted(order)
    assert (finished.count(head), finished.count(branches)) == (1, 1)
    assert f"{head}: done before" in done.last.stderr
    assert f"{branches}: {EPOCHS}/{EPOCHS}, loss" in done.last.stderr


def test_the_cache_holds_what_the_parts_make_of_all_turns(done: Done) -> None:
    (folder,) = (done.out / "cache").iterdir()
    manifest, _ = read_manifest(open_place(str(folder)))
    turned = ("weak", "weak90", "weak180", "weak270")
    branches = ("branch1", "branch2", "branch3")
    assert manifest.features == dict.fromkeys(turned, ("ss_head", *branches))
    head, branched = (f"prepared:{done.found(stage_of(kind))['sha256']}" for kind in KINDS)
    assert manifest.made_by == {"ss_head": head, **dict.fromkeys(branches, branched)}


def test_students_learn_from_it_and_carry_no_trace_of_it(done: Done) -> None:
    records = {record.objective: record for record in done.ledger.trials(role=Role.SEARCH)}
    assert {name: record.status for name, record in records.items()} == {
        "sskd": "completed",
        "hsakd": "completed",
    }
    assert records["sskd"].best["train/ss"] > 0
    assert all(records["hsakd"].best[f"train/branch{number}"] > 0 for number in (1, 2, 3))
    student = safetensors.torch.load_file(done.out / "champion" / "student.safetensors")
    bare = build_model(ModelConfig(name=ModelName.RESNET8, width=4), n_classes=10, in_channels=1)
    assert student.keys() == bare.state_dict().keys()
    teacher = safetensors.torch.load_file(done.out / "teacher" / "teacher.safetensors")
    assert teacher.keys() == {f"body.{name}" for name in bare.state_dict()}
    assert all(torch.isfinite(value).all() for value in teacher.values() if value.is_floating_point())


def parent_of(done: Done) -> tuple[MlflowClient, Run]:
    prepare_mlflow()
    client = MlflowClient(done.place["tracking_uri"])
    return client, client.get_run(done.place["parent_run_id"])


@pytest.mark.parametrize("kind", KINDS)
def test_mlflow_has_the_duration_each_epochs_loss_the_digest_and_the_recipe(
    done: Done, kind: Preparation
) -> None:
    client, parent = parent_of(done)
    assert parent.data.metrics[f"seconds/{stage_of(kind)}"] > 0
    curve = client.get_metric_history(parent.info.run_id, f"{stage_of(kind)}/train/loss")
    assert sorted(point.step for point in curve) == list(range(1, EPOCHS + 1))
    losses = {point.step: point.value for point in curve}
    assert losses[EPOCHS] < losses[1]
    tags = parent.data.tags
    assert tags[f"teacher.{kind}"] == done.found(stage_of(kind))["sha256"]
    recipe = json.loads(tags[f"teacher.{kind}.recipe"])
    assert (recipe["epochs"], recipe["lr"], recipe["batch_size"]) == (EPOCHS, 0.05, 32)


def test_the_registry_knows_of_it(done: Done) -> None:
    client, _ = parent_of(done)
    version, *_ = client.search_model_versions()
    for kind in KINDS:
        assert version.tags[f"teacher.{kind}"] == done.found(stage_of(kind))["sha256"]
