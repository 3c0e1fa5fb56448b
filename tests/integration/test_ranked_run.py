"""A whole run whose space ranks by what features are worth: from the first epoch to the page of methods."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from orchestrator.records.events import EpochEnded, StageEpoch, StageEvent
from orchestrator.records.ledger import Ledger
from orchestrator.tracking.store import prepare_mlflow
from orchestrator.tracking.views import VIEW_TAG
from trainables.config import Role

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.slow]

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 900.0
OWN, KNN = "selection/accuracy", "selection/knn_accuracy"
EXPERIMENT = """\
name: features
data: {name: digits, train_limit: 300}
teacher: {model: {name: mlp, width: 32}, training: {epochs: 6}}
student: {name: mlp, width: 12}
views: {weak: {views: 1, recipe: []}}
training: {epochs: 3, batch_size: 32, precision: fp32}
space: space.yaml
budget: {trials: 3, finalists: 1, seeds: 2}
cluster: {slots: 1, gpus_per_worker: 0}
export: {int8: true, int8_aware: {epochs: 2}}
"""
SPACE = """\
name: features
objectives: {simreg: {regression_weight: {loguniform: [1, 10]}}}
training: {lr: {loguniform: [0.01, 0.1]}}
search: {algorithm: optuna, rank_by: knn_accuracy}
"""


@dataclass(frozen=True)
class Done:
    """A folder with both files, and what running said."""

    folder: Path
    stdout: str
    stderr: str

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.stdout)
        return found

    @property
    def out(self) -> Path:
        return self.folder / "out" / "features"

    @property
    def ledger(self) -> Ledger:
        ledger = Ledger(self.out)
        ledger.close()
        return ledger


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
    folder = tmp_path_factory.mktemp("ranked")
    (folder / "features.yaml").write_text(EXPERIMENT)
    (folder / "space.yaml").write_text(SPACE)
    ran = called(folder, "run", "features.yaml", "--json")
    return Done(folder, ran.stdout, ran.stderr)


def test_every_student_is_judged_by_the_figure_in_each_epoch_and_keeps_its_best(done: Done) -> None:
    ledger = done.ledger
    told: dict[str, dict[int, float]] = {}
    for event in ledger.events_of(EpochEnded):
        assert OWN in event.metrics
        told.setdefault(event.trial, {})[event.epoch] = event.metrics[KNN]
    records = ledger.trials()
    assert {record.role for record in records} == set(Role)
    for record in records:
        best = max(told[record.trial], key=lambda epoch: (told[record.trial][epoch], -epoch))
        assert (record.best_epoch, record.score) == (best, told[record.trial][best])


def test_the_finalist_is_the_trial_with_the_best_figure_and_the_control_is_judged_alike(done: Done) -> None:
    searched = done.ledger.trials(role=Role.SEARCH)
    scores = {record.trial: record.score or 0.0 for record in searched}
    (finalist,) = done.summary["finalists"]
    repeats = {record.repeats for record in done.ledger.trials(role=Role.FINALIST)}
    assert repeats <= {trial for trial, score in scores.items() if score == max(scores.values())}
    (tested,) = (
        event.found for event in done.ledger.events_of(StageEvent) if (event.stage, event.status) == TESTED
    )
    for students in (finalist, finalist["control"]):
        found = [tested[trial] for trial in students["trials"]]
        assert students["test_accuracies"] == [figures["knn_accuracy"] for figures in found]
        own = [figures["accuracy"] for figures in found]
        assert students["test_own_accuracy"] == pytest.approx(sum(own) / len(own))
    assert finalist["test_mean"] > finalist["test_own_accuracy"] + 0.2  # nothing taught its own answers
    assert finalist["control"]["objective"] == "ce"
    assert finalist["control"]["test_own_accuracy"] > 0.5
    assert done.summary["teacher"]["test_ranked"] == tested["teacher"]["knn_accuracy"] > 0.7


TESTED = ("test", "finished")


def test_tables_report_card_and_registry_name_the_figure(done: Done) -> None:
    assert done.summary["rank_by"] == "knn_accuracy"
    assert "kNN accuracy" in done.stderr
    report = (done.out / "report.html").read_text()
    assert "selection kNN accuracy, %" in report
    metrics = json.loads((done.out / "champion" / "model_card.json").read_text())["metrics"]
    (finalist,) = done.summary["finalists"]
    assert metrics["test_knn_accuracy_mean"] == finalist["test_mean"]
    assert metrics["test_accuracy_mean"] == pytest.approx(finalist["test_own_accuracy"])


def test_mlflow_ranks_by_the_figure(done: Done) -> None:
    prepare_mlflow()
    place = done.summary["mlflow"]
    client = MlflowClient(place["tracking_uri"])
    view = client.get_experiment(place["experiment_id"]).tags[VIEW_TAG]
    assert json.loads(view)["orderByKey"] == "metrics.`rank`"
    assert "metrics.`knn_acc`" in json.loads(view)["selectedColumns"]
    runs: dict[str, Run] = {
        run.data.tags["trial_id"]: run
        for run in client.search_runs([place["experiment_id"]])
        if "trial_id" in run.data.tags
    }
    champion = runs[done.summary["champion"]["trial_id"]].data.metrics
    assert champion.keys() >= {"acc", "knn_acc", "test_acc", "test_knn_acc", "gain_over_control", "ece"}
    parent = client.get_run(place["parent_run_id"]).data.metrics
    (finalist,) = done.summary["finalists"]
    assert parent["champion_knn_acc"] == pytest.approx(finalist["selection_mean"], rel=1e-4)


def test_the_champion_is_trained_on_for_int8_and_its_file_measured_beside_the_others(done: Done) -> None:
    stage, files = "int8 aware", done.summary["champion"]["exports"]
    assert [event.epoch for event in done.ledger.events_of(StageEpoch) if event.stage == stage] == [1, 2]
    assert not any("-int8-" in record.trial for record in done.ledger.trials())  # it is no finalist
    for name in ("onnx_int8", "onnx_int8_aware"):
        assert files[name]["agreement"] > 0.8
        assert 0 <= files[name]["accuracy"] <= 1
        assert files[name]["latency"]["batch_1_median_ms"] > 0
    file = done.out / "champion" / "student_int8_aware.onnx"
    answered = called(done.folder, "evaluate", str(file), "--data", "features.yaml", "--json")
    assert json.loads(answered.stdout)["accuracy"] == pytest.approx(files["onnx_int8_aware"]["accuracy"])
    place = done.summary["mlflow"]
    parent = MlflowClient(place["tracking_uri"]).get_run(place["parent_run_id"]).data.metrics
    assert parent["champion_int8_aware_accuracy"] == pytest.approx(
        files["onnx_int8_aware"]["accuracy"], abs=1e-4
    )
    assert f"{stage}/selection/knn_accuracy" in parent


def test_other_commands_go_by_the_figure_too(done: Done) -> None:
    champion = done.summary["champion"]
    (finalist,) = done.summary["finalists"]
    reached = dict(zip(finalist["trials"], finalist["test_accuracies"], strict=True))
    found = json.loads(called(done.folder, "evaluate", "features.yaml", "--split", "test", "--json").stdout)
    assert found["rank_by"] == "knn_accuracy"
    assert found["student"]["ranked"] == pytest.approx(reached[champion["trial_id"]], abs=1e-9)
    assert found["teacher"]["ranked"] == done.summary["teacher"]["test_ranked"]
    page = called(done.folder, "methods", "features.yaml").stdout
    assert "judged by kNN accuracy" in page
    assert f"{100 * finalist['test_mean']:.2f}" in page
    again = called(done.folder, "run", "features.yaml", "--json")
    assert json.loads(again.stdout) == done.summary
