"""A recorded experiment for tests: its ledger, its recorders, its runs, and a student to register."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnx
import onnxruntime
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from onnx import TensorProto, helper, numpy_helper

from orchestrator.records.events import EpochEnded, TrialEnded, TrialStarted
from orchestrator.records.ledger import Ledger
from orchestrator.tracking.parent import ParentFacts
from orchestrator.tracking.recorder import MlflowRecorder
from orchestrator.tracking.registry import register_champion
from trainables.errors import StillhouseError

TERMS = ("selection/accuracy", "selection/nll", "train/loss", "terms/ce", "terms/kd")


class Scene:
    """One experiment: its output folder, its ledger, and recorders of it."""

    def __init__(self, uri: str, out: Path) -> None:
        self.uri = uri
        self.out = out
        self.name = f"stillhouse/{out.name}"
        self.ledger = Ledger(out)
        self.budget = 16

    def facts(self) -> ParentFacts:
        return ParentFacts(
            "demo",
            {"name": "demo", "budget": {"trials": self.budget}, "student": {"name": "mlp", "width": 8}},
            searched={"student.width"},
            versions={"torch": "2.13.0"},
        )

    def recorder(self) -> MlflowRecorder:
        recorder = MlflowRecorder(
            self.ledger, tracking_uri=self.uri, experiment_name=self.name, out=self.out, parent=self.facts()
        )
        recorder.start()
        return recorder

    def start(self, trial: str, role: str = "search", **parameters: Any) -> None:
        self.ledger.append(
            TrialStarted(
                trial=trial,
                role=role,
                search="5ea4c4",
                objective="kd",
                parameters=parameters,
                spec={"seed": 11},
            )
        )

    def train(self, trial: str, epochs: range) -> None:
        for epoch in epochs:
            metrics = {term: place + epoch / 1000 for place, term in enumerate(TERMS)}
            self.ledger.append(EpochEnded(trial=trial, epoch=epoch, metrics=metrics))

    def end(self, trial: str, status: str, reason: str | None = None) -> None:
        record = self.ledger.trial(trial)
        assert record is not None
        self.ledger.append(
            TrialEnded(
                trial=trial,
                status=status,
                reason=reason,
                epochs=record.epochs,
                best_epoch=record.best_epoch,
                best=record.best,
                final=record.final,
                checkpoint=None,
            )
        )


def children(client: MlflowClient, recorder: MlflowRecorder) -> dict[str, Run]:
    runs = client.search_runs(
        [recorder.experiment_id], f"tags.`mlflow.parentRunId` = '{recorder.parent_run_id}'"
    )
    by_trial = {run.data.tags["trial_id"]: run for run in runs}
    assert len(by_trial) == len(runs), "two runs of one trial"
    return by_trial


def is_ready(recorder: MlflowRecorder, timeout_s: float) -> bool:
    """Whether the parent run exists, after waiting at most so long for it."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return bool(recorder.parent_run_id)
        except StillhouseError:
            if time.monotonic() >= deadline:
                return False
        time.sleep(0.05)


def steps(client: MlflowClient, run: Run, term: str) -> list[int]:
    return sorted(point.step for point in client.get_metric_history(run.info.run_id, term))


def curves(client: MlflowClient, run: Run) -> dict[str, list[int]]:
    return {term: steps(client, run, term) for term in TERMS}


def every_term(epochs: int) -> dict[str, list[int]]:
    return {term: list(range(1, epochs + 1)) for term in TERMS}


def export_student(folder: Path, *, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((16, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        ],
        "student",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(weights, "w")],
    )
    folder.mkdir()
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), folder / "student.onnx")
    (folder / "student.safetensors").write_bytes(weights.tobytes())
    (folder / "README.md").write_text("A student.")


def register(scene: Scene, recorder: MlflowRecorder, folder: Path) -> str:
    run_id = recorder.run_id("t-1")
    assert run_id is not None
    return register_champion(
        scene.uri, model_name=scene.out.name, run_id=run_id, exported=folder, tags={"teacher": "3f2a"}
    )


def check_champion(scene: Scene, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", scene.uri)
    images = np.random.default_rng(0).standard_normal((5, 1, 4, 4)).astype(np.float32)
    session = onnxruntime.InferenceSession(folder / "student.onnx", providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"images": images})
    uri = f"models:/{scene.out.name}@champion"
    np.testing.assert_array_equal(mlflow.pyfunc.load_model(uri).predict(images)["logits"], expected)
    copy = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(scene.out / "copy")))
    for name in ("student.safetensors", "README.md"):
        assert (copy / name).read_bytes() == (folder / name).read_bytes()
