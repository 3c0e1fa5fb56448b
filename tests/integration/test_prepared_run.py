"""A whole run of objectives that the teacher is prepared for; killed while it is prepared, it goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from mlflow import MlflowClient

from orchestrator.records.events import StageEvent
from orchestrator.records.ledger import Ledger
from orchestrator.tracking.store import prepare_mlflow
from trainables.cache.format.manifest import read_manifest
from trainables.cache.format.storage import open_place
from trainables.config import Role

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.slow]

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 600.0
EXPERIMENT = """\
name: prepared
data: {name: digits, train_limit: 300}
teacher:
  model: {name: resnet8, width: 4}
  training: {epochs: 3, lr: 0.1}
  preparation: {epochs: 3, lr: 0.05}
student: {name: mlp, width: 8}
views: {weak: {views: 1, recipe: []}}
training: {epochs: 2, batch_size: 32, precision: fp32}
space: space.yaml
budget: {trials: 2, finalists: 1, seeds: 1}
cluster: {slots: 1, gpus_per_worker: 0}
"""
SPACE = """\
name: turned
objectives: {sskd: {ss_weight: {uniform: [5, 20]}}}
search: {algorithm: random}
scheduler: {name: fifo}
"""
HEAD, CACHE = "preparation ss_head", "cache"


@dataclass(frozen=True)
class Done:
    """A folder of output, and what running said, the first time and again."""

    out: Path
    first: str
    again: str
    summary: dict[str, Any]

    @property
    def stages(self) -> list[StageEvent]:
        ledger = Ledger(self.out)
        ledger.close()
        return list(ledger.events_of(StageEvent))


def called(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "COLUMNS": "300"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "prepared.yaml").write_text(EXPERIMENT)
    (folder / "space.yaml").write_text(SPACE)
    first = called(folder, "run", "prepared.yaml", "--json")
    (folder / "prepared.yaml").write_text(EXPERIMENT.replace("trials: 2", "trials: 3"))
    again = called(folder, "run", "prepared.yaml", "--json")
    return Done(folder / "out" / "prepared", first.stderr, again.stderr, json.loads(again.stdout))


def test_it_is_prepared_once_before_the_cache_and_told(done: Done) -> None:
    finished = [event.stage for event in done.stages if event.status == "finished"]
    assert finished.index("teacher") < finished.index(HEAD) < finished.index(CACHE)
    assert finished.count(HEAD) == 1
    assert f"{HEAD}: 3/3, loss" in done.first
    assert f"{HEAD}: done before" in done.again


def test_the_cache_holds_what_the_head_makes_of_all_turns(done: Done) -> None:
    (folder,) = (done.out / "cache").iterdir()
    manifest, _ = read_manifest(open_place(str(folder)))
    (found,) = (event.found for event in done.stages if (event.stage, event.status) == (HEAD, "finished"))
    turned = ("weak", "weak90", "weak180", "weak270")
    assert manifest.features == dict.fromkeys(turned, ("ss_head",))
    assert manifest.made_by == {"ss_head": f"prepared:{found['sha256']}"}


def test_students_learn_from_it_and_carry_no_trace_of_it(done: Done) -> None:
    ledger = Ledger(done.out)
    ledger.close()
    records = ledger.trials(role=Role.SEARCH)
    assert [record.status for record in records] == ["completed"] * 3
    assert all(record.best["train/ss"] > 0 for record in records)
    student = safetensors.torch.load_file(done.out / "champion" / "student.safetensors")
    assert {name.split(".")[0] for name in student} == {"2", "4"}
    teacher = safetensors.torch.load_file(done.out / "teacher" / "teacher.safetensors")
    assert not any("ss_head" in name for name in teacher)
    assert all(torch.isfinite(value).all() for value in teacher.values() if value.is_floating_point())


def test_mlflow_and_registry_know_of_it(done: Done) -> None:
    prepare_mlflow()
    place = done.summary["mlflow"]
    client = MlflowClient(place["tracking_uri"])
    parent = client.get_run(place["parent_run_id"])
    assert parent.data.metrics[f"seconds/{HEAD}"] > 0
    (found,) = (event.found for event in done.stages if (event.stage, event.status) == (HEAD, "finished"))
    version, *_ = client.search_model_versions()
    assert version.tags["teacher.ss_head"] == found["sha256"]
