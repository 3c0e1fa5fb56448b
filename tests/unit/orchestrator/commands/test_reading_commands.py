"""Commands that only read what a run wrote answer where torch, Ray and MLflow cannot be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.loading import EXPERIMENTS_FOLDER, load_experiment
from orchestrator.config.paths import experiment_name, out_folder, tracking_uri
from orchestrator.pipeline.finished import STAGE, run_key
from orchestrator.records.ledger import Ledger
from orchestrator.records.summary import Summary
from orchestrator.tracking.cursor import CursorFile, TrackingCursor
from tests.synthetic_answers import SyntheticAnswers

BLOCKED = ("torch", "torchvision", "ray", "mlflow")
# The finder stands before all others, so an import of a blocked library fails as if it were not installed.
PROGRAM = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Blocked())
from orchestrator.cli import app
app(sys.argv[1:], standalone_mode=False)
"""


@pytest.fixture
def experiment(tmp_path: Path, summary: Summary) -> Path:
    """An experiment file beside the folder of its run, which is finished and keeps its record on a server."""
    file = tmp_path / "digits.yaml"
    text = (EXPERIMENTS_FOLDER / "digits.yaml").read_text(encoding="utf-8")
    file.write_text(
        f"{text}\nout: {tmp_path}/out\nrecord: {{tracking_uri: 'http://127.0.0.1:9'}}\n", encoding="utf-8"
    )
    loaded = load_experiment(str(file))
    out = out_folder(loaded)
    out.mkdir()
    exported = out / "student.onnx"
    exported.write_bytes(b"weights")
    onnx = summary.champion.exports["onnx"].with_overrides(path=str(exported))
    champion = summary.champion.with_overrides(exports={"onnx": onnx})
    SyntheticAnswers(images=20).write(out, ["f1-1", "b-1"])
    (out / "summary.json").write_text(summary.with_overrides(champion=champion).model_dump_json())
    identity = {"kind": "identity", "ledger": "l"}
    events = [identity, *_students(), _finished(STAGE, run_key(loaded, Ledger(out)), {})]
    lines = [json.dumps({"seq": seq, "time_ms": 1, **event}) + "\n" for seq, event in enumerate(events)]
    (out / "ledger.jsonl").write_text("".join(lines))
    progress = TrackingCursor(ledger="l", experiment_id="7", parent_run_id="p", cursor=len(events))
    CursorFile(out, tracking_uri(loaded), experiment_name(loaded)).save(progress)
    return file


def _students() -> list[dict[str, Any]]:
    """A control and a finalist with two seeds each, tested."""
    events: list[dict[str, Any]] = []
    tested: dict[str, dict[str, float]] = {}
    for role, objective in (("baseline", "ce"), ("finalist", "kd")):
        for seed in (1, 2):
            trial, metrics = f"{objective}-{seed}", {"selection/accuracy": 0.5, "seconds": 1.0}
            spec = {"seed": seed, "objective": {"name": objective}, "student": {}, "training": {}}
            start = {"trial": trial, "role": role, "search": "s", "objective": objective, "sampled": {}}
            events += [
                {"kind": "trial_started", **start, "parameters": {}, "spec": spec},
                {"kind": "epoch", "trial": trial, "epoch": 1, "metrics": metrics},
                {
                    "kind": "trial_ended",
                    "trial": trial,
                    "status": "completed",
                    "epochs": 1,
                    "final": metrics,
                    "reason": None,
                    "best_epoch": 1,
                    "best": metrics,
                    "checkpoint": "best.safetensors",
                },
            ]
            tested[trial] = {"accuracy": 0.8 + seed / 100, "ece": 0.05}
    return [*events, _finished("test", "k", tested)]


def _finished(stage: str, key: str, result: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "stage", "stage": stage, "key": key, "status": "finished", "seconds": 1, "result": result}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("methods", "| `kd` |"),
        ("show", "finalist 1"),
        ("watch", "the run is over"),
        ("compare", "their files say the same"),
        ("report", "report.html ("),
        ("run", "exported: f1-1"),
        ("pick", "exported: f1-1"),
        ("ui", "http://127.0.0.1:9/#/experiments/7/runs"),
    ],
)
def test_a_command_that_only_reads_needs_neither_torch_nor_ray(
    experiment: Path, command: str, said: str
) -> None:
    n_experiments = 2 if command == "compare" else 1
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, command, *[str(experiment)] * n_experiments],
        capture_output=True,
        text=True,
        check=False,
        cwd=experiment.parent,
        env={"PYTHONPATH": str(Path(__file__).parents[4]), "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout + done.stderr
    if command == "report":
        (page,) = (experiment.parent / "out").rglob("report.html")
        assert page.read_text(encoding="utf-8").count("<img ") > 0


def test_what_is_blocked_cannot_be_imported() -> None:
    program = PROGRAM.replace("from orchestrator.cli import app", "import ray")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "ImportError: ray is blocked" in done.stderr
