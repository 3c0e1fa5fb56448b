"""A search as it is recorded, and all that a store has of it, as plain data by which two are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from orchestrator.records.events import GroupAdded, StageEvent
from tests.integration.recorded_scene import Scene
from trainables.config import Role

PARENT = "parent"
PATIENCE_S = 900.0


def scene_in(tmp_path: Path, uri: str, name: str) -> Scene:
    out = tmp_path / f"{tmp_path.name}-{name}"  # an experiment's name is that of its folder
    out.mkdir()
    return Scene(uri, out)


def record_search(scene: Scene, midway: Callable[[], None] = lambda: None) -> None:
    """A search of three students and a finalist, recorded while it goes on; `midway` is called in it."""
    recorder = scene.recorder()
    split = {"data_digest": "27" * 32, "ids_digest": "11b7", "n_train": 9, "classes": ["0", "1"]}
    scene.ledger.append(StageEvent(stage="teacher", key="k", status="finished", result={"split": split}))
    for number, status in enumerate(("completed", "pruned", "failed"), start=1):
        trial = f"t-{number}"
        scene.start(trial, temperature=float(number))
        scene.train(trial, range(1, 3))
        recorder.flush(PATIENCE_S)
        scene.train(trial, range(3, 5))
        scene.end(trial, status, "the loss is nan" if status == "failed" else None)
    midway()
    scene.start("t-1-seed0", "finalist", temperature=1.0)
    scene.train("t-1-seed0", range(1, 3))
    scene.end("t-1-seed0", "completed")
    recorder.flush(PATIENCE_S)
    recorder.record_figures("t-1-seed0", {"params": 10, "rank": 1}, champion=True)
    group = GroupAdded(
        group="t-1-seeds",
        role=Role.FINALIST,
        search="5ea4c4",
        objective="kd",
        parameters={"temperature": 1.0},
        trials=("t-1-seed0",),
        figures={"acc": 0.9, "seeds": 1, "rank": 1},
        champion=True,
    )
    scene.ledger.append(group)
    report = scene.out / "report.html"
    report.write_text("<p>report</p>")
    recorder.record_artifact(report)
    left = recorder.close("FINISHED", timeout_s=PATIENCE_S)
    assert not left, left
    assert left.refused == 0


def recorded(client: MlflowClient, experiment_name: str) -> dict[str, dict[str, Any]]:
    """By trial, group or "parent": every point of every metric, parameters, tags, models, data and files.

    Ids of runs, models and the experiment are replaced by what they stand for.

    Raises:
        AssertionError: something has two runs, a run has two models, or a point is there twice.
    """
    experiment = client.get_experiment_by_name(experiment_name)
    assert experiment is not None
    runs = list(client.search_runs([experiment.experiment_id], max_results=1000))
    names = {run.info.run_id: run.data.tags.get("trial_id", PARENT) for run in runs}
    assert len(set(names.values())) == len(names), f"two runs of one student: {sorted(names.values())}"
    found = {names[run.info.run_id]: _run(client, run, names, experiment.experiment_id) for run in runs}
    models = client.search_logged_models([experiment.experiment_id], max_results=1000)
    for model in models:
        of_run = found[names[model.source_run_id]]["models"]
        kind = str(model.model_type)
        assert kind not in of_run, f"two models of {names[model.source_run_id]}"
        metrics = sorted((m.key, m.step, m.timestamp, m.value, m.dataset_name) for m in model.metrics or ())
        of_run[kind] = (str(model.status), model.name, dict(model.params), metrics)
    return found


def _run(client: MlflowClient, run: Run, names: Mapping[str, str], experiment_id: str) -> dict[str, Any]:
    run_id = run.info.run_id
    points = [
        (point.key, point.step, point.timestamp, point.value)
        for key in run.data.metrics
        for point in client.get_metric_history(run_id, key)
    ]
    assert len({point[:2] for point in points}) == len(points), f"{names[run_id]} has two points of a step"
    is_parent = names[run_id] == PARENT
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        # The parent's are when it was recorded; a student's are the ledger's.
        "times": None if is_parent else (run.info.start_time, run.info.end_time),
        "points": sorted(points),
        "latest": dict(run.data.metrics),
        "params": dict(run.data.params),
        "tags": {key: _text(key, value, names, experiment_id) for key, value in run.data.tags.items()},
        "data": sorted(
            (i.dataset.name, i.dataset.digest) for i in (run.inputs.dataset_inputs if run.inputs else ())
        ),
        "files": sorted((file.path, file.file_size) for file in client.list_artifacts(run_id)),
        "models": {},
    }


def _text(key: str, value: str, names: Mapping[str, str], experiment_id: str) -> str:
    if key == "mlflow.note.content":
        return value.replace(f"experiments/{experiment_id}", "experiments/ID")
    return names.get(value, value)
