"""The record in a real SQLite store: runs, curves, resumption, repairs, and the registry."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.config.tracking_uri import default_tracking_uri
from orchestrator.records.events import GroupAdded, StageEvent
from orchestrator.records.ledger import Ledger
from orchestrator.tracking.recorder import MlflowRecorder
from orchestrator.tracking.registry import register_champion
from orchestrator.tracking.views import VIEW_TAG
from tests.integration.recorded_scene import (
    Scene,
    check_champion,
    children,
    curves,
    every_term,
    export_student,
    is_ready,
    register,
    steps,
)
from trainables.config import Role
from trainables.errors import ConfigError, StillhouseError

pytestmark = pytest.mark.mlflow


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return default_tracking_uri(tmp_path_factory.mktemp("store"))


@pytest.fixture
def client(store: str) -> MlflowClient:
    return MlflowClient(store, registry_uri=store)


@pytest.fixture
def scene(store: str, tmp_path: Path) -> Scene:
    return Scene(store, tmp_path)


def test_an_experiment_is_a_parent_with_a_child_for_each_student(scene: Scene, client: MlflowClient) -> None:
    recorder = scene.recorder()
    scene.start("t-0001", temperature=4.0)
    scene.train("t-0001", range(1, 4))
    scene.end("t-0001", "completed")
    scene.start("finalist-1", "finalist", temperature=4.0)
    scene.train("finalist-1", range(1, 3))
    scene.end("finalist-1", "completed")
    scene.ledger.append(StageEvent(stage="search", key="k", status="finished", seconds=12.5, result={}))
    recorder.record_figures("finalist-1", {"params": 270_410, "latency_ms": 1.23456789}, champion=True)
    recorder.record_figures(None, {"champion_acc": 0.9})
    report = scene.out / "report.html"
    report.write_text("<p>report</p>")
    recorder.record_artifact(report)
    assert not recorder.close("FINISHED")

    parent = client.get_run(recorder.parent_run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["kind"] == "experiment"
    assert parent.data.params == {"name": "demo", "budget.trials": "16", "student.name": "mlp"}
    assert parent.data.metrics == {"seconds/search": 12.5, "champion_acc": 0.9}
    assert parent.data.tags["version.torch"] == "2.13.0"
    assert "tags.kind != 'experiment'" in parent.data.tags["mlflow.note.content"]
    names = {file.path for file in client.list_artifacts(recorder.parent_run_id)}
    assert names == {"experiment.json", "report.html"}
    view = json.loads(client.get_experiment(recorder.experiment_id).tags[VIEW_TAG])
    assert (view["name"], view["orderByKey"]) == ("Best", "metrics.`acc`")
    assert "params.`temperature`" in json.loads(view["state"])["selectedColumns"]

    runs = children(client, recorder)
    trial, finalist = runs["t-0001"], runs["finalist-1"]
    assert (trial.info.run_name, trial.data.tags["kind"]) == ("0001 kd", "trial")
    assert trial.data.params == {"temperature": "4.0"}
    assert (finalist.info.run_name, finalist.data.tags["kind"]) == ("★ finalist-1", "finalist")
    assert finalist.data.tags["champion"] == "champion"
    assert finalist.data.params == {"temperature": "4.0", "seed": "11"}
    assert finalist.data.metrics["params"] == 270_410
    assert finalist.data.metrics["latency_ms"] == 1.2346
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    figures = {name: trial.data.metrics[name] for name in ("acc", "acc_final", "nll", "epochs", "epoch_best")}
    assert figures == {"acc": 0.003, "acc_final": 0.003, "nll": 1.003, "epochs": 3, "epoch_best": 3}
    record = scene.ledger.trial("t-0001")
    assert record is not None
    assert (trial.info.start_time, trial.info.end_time) == (record.started_ms, record.ended_ms)
    assert recorder.run_id("t-0001") == trial.info.run_id


def test_a_finalist_is_one_run_above_those_of_its_seeds_also_after_a_replay(
    scene: Scene, client: MlflowClient
) -> None:
    recorder = scene.recorder()
    for trial in ("kd-1-seed0", "kd-1-seed1"):
        scene.start(trial, "finalist", temperature=4.0)
        scene.train(trial, range(1, 3))
        scene.end(trial, "completed")
    group = GroupAdded(
        group="kd-1-seeds",
        role=Role.FINALIST,
        search="5ea4c4",
        objective="kd",
        parameters={"temperature": 4.0},
        trials=("kd-1-seed0", "kd-1-seed1"),
        figures={"acc": 0.9, "acc_std": 0.01, "seeds": 2, "rank": 1},
        champion=True,
    )
    scene.ledger.append(group)
    recorder.record_figures("kd-1-seed0", {"rank": 1}, champion=True)
    assert not recorder.close("FINISHED")
    (scene.out / "mlflow.json").unlink()
    again = scene.recorder()
    assert not again.close("FINISHED")

    assert again.parent_run_id == recorder.parent_run_id
    (run,) = children(client, again).values()
    assert (run.info.run_name, run.info.status) == ("★ kd-1-seeds", "FINISHED")
    assert (run.data.tags["kind"], run.data.tags["role"]) == ("group", "finalist")
    assert run.data.metrics == {"acc": 0.9, "acc_std": 0.01, "seeds": 2.0, "rank": 1.0}
    below = client.search_runs(
        [again.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'", order_by=["tags.trial_id"]
    )
    assert [each.data.tags["trial_id"] for each in below] == ["kd-1-seed0", "kd-1-seed1"]
    view = json.loads(client.get_experiment(again.experiment_id).tags[VIEW_TAG])
    assert view["orderByKey"] == "metrics.`rank`"
    found = client.search_runs([again.experiment_id], view["searchFilter"], order_by=["metrics.rank ASC"])
    assert found[0].info.run_name == "★ kd-1-seed0"


def test_finished_students_are_ranked_among_mlflows_models_once_each(
    scene: Scene, client: MlflowClient
) -> None:
    split = {"data_digest": "27" * 32, "ids_digest": "11b7", "n_train": 9, "classes": ["0", "1"]}
    scene.ledger.append(StageEvent(stage="teacher", key="k", status="finished", result={"split": split}))
    recorder = scene.recorder()
    for trial, epochs, status in (("t-1", 2, "completed"), ("t-2", 3, "completed"), ("t-3", 4, "pruned")):
        scene.start(trial, temperature=4.0)
        scene.train(trial, range(1, epochs + 1))
        scene.end(trial, status)
    recorder.record_figures("t-1", {"latency_ms": 0.25})
    assert not recorder.close("FINISHED")
    (scene.out / "mlflow.json").unlink()
    again = scene.recorder()
    assert not again.close("FINISHED")

    by_accuracy = [{"field_name": "metrics.acc", "ascending": False}]
    models = client.search_logged_models([again.experiment_id], order_by=by_accuracy)
    assert [model.tags["trial_id"] for model in models] == ["t-2", "t-1"]
    own = {metric.key: metric for metric in models[1].metrics or ()}
    assert (own["acc"].value, own["latency_ms"].value) == (0.002, 0.25)
    assert (own["acc"].dataset_name, own["acc"].dataset_digest) == ("images", ("27" * 32)[:36])
    assert models[1].params == {"temperature": "4.0"}
    assert children(client, again)["t-1"].info.run_id == models[1].source_run_id
    inputs = client.get_run(again.parent_run_id).inputs
    assert inputs is not None
    (data,) = inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("images", ("27" * 32)[:36])


def test_a_replay_leaves_every_epoch_and_term_once(scene: Scene, client: MlflowClient) -> None:
    first = scene.recorder()
    for trial in ("t-1", "t-2"):
        scene.start(trial, temperature=2.0)
        scene.train(trial, range(1, 6))
        scene.end(trial, "completed")
    assert not first.close("FINISHED")
    before = {trial: run.info.run_id for trial, run in children(client, first).items()}
    (scene.out / "mlflow.json").unlink()

    second = scene.recorder()
    assert not second.close("FINISHED")
    assert (second.parent_run_id, second.experiment_id) == (first.parent_run_id, first.experiment_id)
    runs = children(client, second)
    assert {trial: run.info.run_id for trial, run in runs.items()} == before
    for run in runs.values():
        assert curves(client, run) == every_term(5)
        assert steps(client, run, "acc") == [0]
        assert run.info.status == "FINISHED"


def cut(scene: Scene, events: int) -> None:
    """The ledger loses its end, as by an accident, and is opened again."""
    scene.ledger.close()
    lines = scene.ledger.path.read_bytes().splitlines(keepends=True)
    scene.ledger.path.write_bytes(b"".join(lines[:events]))
    scene.ledger = Ledger(scene.out)


@pytest.mark.parametrize("cursor_is_lost", [False, True])
def test_what_is_trained_again_after_the_ledger_was_cut_is_in_mlflow_once(
    scene: Scene, client: MlflowClient, cursor_is_lost: bool
) -> None:
    first = scene.recorder()
    for trial in ("t-1", "t-2"):
        scene.start(trial)
        scene.train(trial, range(1, 6))
        scene.end(trial, "completed")
    scene.ledger.append(StageEvent(stage="search", key="k", status="finished", seconds=9.0, result={}))
    assert not first.close("FINISHED")
    before = {trial: run.info.run_id for trial, run in children(client, first).items()}
    # What is left: the identity, t-1 whole, and two epochs of t-2.
    cut(scene, next(e.seq for e in scene.ledger.events() if e.plain().get("trial") == "t-2") + 3)
    if cursor_is_lost:
        (scene.out / "mlflow.json").unlink()
    second = scene.recorder()
    assert not second.flush(60)
    time.sleep(0.01)  # no event has the time of one that was lost
    scene.train("t-2", range(3, 6))
    scene.end("t-2", "completed")
    scene.ledger.append(StageEvent(stage="search", key="k", status="finished", seconds=8.0, result={}))
    assert not second.close("FINISHED")

    runs = children(client, second)
    assert (runs["t-1"].info.run_id == before["t-1"], runs["t-2"].info.run_id == before["t-2"]) == (
        True,
        False,
    )
    for run in [*runs.values(), client.get_run(second.parent_run_id)]:
        points = [p for key in run.data.metrics for p in client.get_metric_history(run.info.run_id, key)]
        assert len({(point.key, point.step) for point in points}) == len(points) > 0
    assert [curves(client, run) for run in runs.values()] == [every_term(5)] * 2
    assert client.get_run(before["t-2"]).info.lifecycle_stage == "deleted"  # and can be restored
    assert client.get_run(second.parent_run_id).data.metrics["seconds/search"] == 8.0


def test_pruned_students_are_killed_and_broken_ones_failed_with_their_reason(
    scene: Scene, client: MlflowClient
) -> None:
    recorder = scene.recorder()
    for trial, status in (("t-1", "pruned"), ("t-2", "failed")):
        scene.start(trial)
        scene.train(trial, range(1, 2))
        scene.end(trial, status, "loss is nan in epoch 2" if status == "failed" else None)
    assert not recorder.close("FINISHED")
    runs = children(client, recorder)
    assert (runs["t-1"].info.status, runs["t-1"].data.tags["outcome"]) == ("KILLED", "pruned")
    assert (runs["t-2"].info.status, runs["t-2"].data.tags["reason"]) == ("FAILED", "loss is nan in epoch 2")


def test_an_interrupted_experiment_goes_on_in_the_same_runs(scene: Scene, client: MlflowClient) -> None:
    first = scene.recorder()
    scene.start("t-1", temperature=4.0)
    scene.train("t-1", range(1, 4))
    assert not first.close("KILLED")
    stopped = children(client, first)["t-1"]
    assert (stopped.info.status, stopped.data.tags["outcome"]) == ("KILLED", "interrupted")
    assert client.get_run(first.parent_run_id).info.status == "KILLED"

    scene.budget = 32
    second = scene.recorder()
    assert is_ready(second, 60)
    scene.train("t-1", range(3, 6))  # from its checkpoint: epoch 3 is trained again
    assert not second.flush(60)
    going = children(client, second)["t-1"]
    assert (going.info.run_id, going.info.status) == (stopped.info.run_id, "RUNNING")
    parent = client.get_run(second.parent_run_id)
    assert (parent.info.run_id, parent.info.status) == (first.parent_run_id, "RUNNING")
    assert (parent.data.params["budget.trials"], parent.data.tags["changed/budget.trials"]) == ("16", "32")

    scene.end("t-1", "completed")
    assert not second.close("FINISHED")
    ended = children(client, second)["t-1"]
    assert (ended.info.status, ended.data.tags["outcome"]) == ("FINISHED", "completed")
    assert steps(client, ended, "train/loss") == [1, 2, 3, 4, 5]


def test_runs_that_a_dead_driver_left_running_are_set_right(scene: Scene, client: MlflowClient) -> None:
    first = scene.recorder()
    for trial in ("t-1", "t-2"):
        scene.start(trial)
        scene.train(trial, range(1, 3))
    scene.end("t-1", "completed")
    assert not first.close("FINISHED")
    for run_id in (first.run_id("t-1"), first.run_id("t-2"), first.parent_run_id):
        assert run_id is not None
        client.update_run(run_id, status="RUNNING")  # what SIGKILL leaves behind

    second = scene.recorder()
    assert not second.flush(60)
    statuses = {trial: run.info.status for trial, run in children(client, second).items()}
    second.close("FINISHED")
    assert statuses == {"t-1": "FINISHED", "t-2": "KILLED"}


def test_a_run_deleted_in_mlflow_is_made_again_from_the_ledger(scene: Scene, client: MlflowClient) -> None:
    first = scene.recorder()
    for trial in ("t-1", "t-2"):
        scene.start(trial, temperature=1.5)
        scene.train(trial, range(1, 4))
        scene.end(trial, "completed")
    assert not first.close("FINISHED")
    lost = first.run_id("t-1")
    assert lost is not None
    client.delete_run(lost)

    second = scene.recorder()
    assert not second.close("FINISHED")
    runs = children(client, second)
    assert runs["t-1"].info.run_id != lost
    assert runs["t-1"].data.params == {"temperature": "1.5"}
    assert [steps(client, run, "terms/kd") for run in runs.values()] == [[1, 2, 3]] * 2


def test_thousands_of_values_arrive_in_batches(scene: Scene, client: MlflowClient) -> None:
    scene.start("t-1")
    scene.train("t-1", range(1, 451))
    scene.end("t-1", "completed")
    recorder = scene.recorder()
    assert not recorder.close("FINISHED")
    run = children(client, recorder)["t-1"]
    assert curves(client, run) == every_term(450)
    assert run.info.status == "FINISHED"


def test_starting_returns_at_once_and_ids_come_when_ready(tmp_path: Path) -> None:
    scene = Scene(default_tracking_uri(tmp_path / "new store"), tmp_path)
    recorder = scene.recorder()
    with pytest.raises(StillhouseError, match="call flush first"):
        _ = recorder.parent_run_id
    assert is_ready(recorder, 120)
    assert recorder.parent_run_id
    assert not recorder.close("FINISHED")
    assert (tmp_path / "mlartifacts").is_dir()


def test_figures_of_a_trial_that_never_started_are_refused(scene: Scene) -> None:
    recorder = MlflowRecorder(
        scene.ledger, tracking_uri=scene.uri, experiment_name="e", out=scene.out, parent=scene.facts()
    )
    with pytest.raises(StillhouseError, match="no trial 'ghost'"):
        recorder.record_figures("ghost", {"params": 1})


def test_a_champion_is_registered_once_and_loads_with_the_same_output(
    scene: Scene, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = scene.recorder()
    scene.start("t-1")
    scene.end("t-1", "completed")
    assert not recorder.close("FINISHED")
    export_student(scene.out / "one", seed=1)
    export_student(scene.out / "two", seed=2)
    assert register(scene, recorder, scene.out / "one") == "1"
    check_champion(scene, scene.out / "one", monkeypatch)
    assert register(scene, recorder, scene.out / "two") == "2"
    assert register(scene, recorder, scene.out / "one") == "1"

    champion = client.get_model_version_by_alias(scene.out.name, "champion")
    assert (int(champion.version), champion.tags["teacher"]) == (1, "3f2a")
    assert "teacher" in str(champion.description)
    assert len(client.search_model_versions(f"name = '{scene.out.name}'")) == 2


def test_a_folder_without_an_exported_student_is_not_registered(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must hold one student\.onnx file, found none"):
        register_champion(scene.uri, model_name="m", run_id="r", exported=tmp_path, tags={})
