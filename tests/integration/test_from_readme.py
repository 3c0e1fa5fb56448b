"""The README's own example, from data to champion: interrupted, gone on with, and asked for once more."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from orchestrator.records.summary import read_summary
from orchestrator.tracking.store import prepare_mlflow

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.slow]

README = Path(__file__).parents[2] / "README.md"
TRIALS = 16
FIRST_S = 900.0


@dataclass(frozen=True)
class Story:
    """What three commands in one folder left behind."""

    folder: Path
    interrupted: subprocess.CompletedProcess[str]
    events_at_stop: list[dict[str, Any]]
    finished: subprocess.CompletedProcess[str]
    events: list[dict[str, Any]]
    again: subprocess.CompletedProcess[str]
    events_again: list[dict[str, Any]]

    @property
    def out(self) -> Path:
        return self.folder / "out" / "my_task"

    @property
    def summary(self) -> dict[str, Any]:
        return read_summary(self.out / "summary.json").plain()


def example_block(language: str, marker: str) -> str:
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)
    return next(block for block in blocks if marker in block)


ONE_SLOT = "cluster: {slots: 1}\n"
"""What tests add to an example whose matter is not how many students train at once: half the processes."""


def command() -> list[str]:
    return [sys.executable, "-m", "orchestrator", "run", "my_task.yaml", "--trials", str(TRIALS), "--json"]


def start(folder: Path) -> subprocess.Popen[str]:
    packages = str(README.parent)
    environment = {**os.environ, "PYTHONPATH": packages, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(),
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], timeout_s: float = FIRST_S) -> subprocess.CompletedProcess[str]:
    out, err = process.communicate(timeout=timeout_s)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def events_of(folder: Path) -> list[dict[str, Any]]:
    ledger = folder / "out" / "my_task" / "ledger.jsonl"
    if not ledger.exists():
        return []
    whole = ledger.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def wait_for_ended_trials(process: subprocess.Popen[str], folder: Path, count: int) -> None:
    deadline = time.monotonic() + FIRST_S
    while time.monotonic() < deadline:
        if sum(event["kind"] == "trial_ended" for event in events_of(folder)) >= count:
            return
        if process.poll() is not None:
            raise AssertionError(f"ended too early:\n{process.communicate()}")
        time.sleep(0.05)
    raise AssertionError("no trial ended in time")


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("readme")
    (folder / "my_task.py").write_text(example_block("python", "def dataset"))
    # Of the user's, with the name of a package of ours: driver and workers must not take it for that.
    (folder / "cluster.py").write_text("# notes on our cluster\n")
    (folder / "my_task.yaml").write_text(example_block("yaml", "name: my_task"))
    first = start(folder)
    wait_for_ended_trials(first, folder, 3)
    first.send_signal(signal.SIGINT)
    interrupted = finish(first)
    at_stop = events_of(folder)
    finished = finish(start(folder))
    events = events_of(folder)
    again = finish(start(folder))
    yield Story(folder, interrupted, at_stop, finished, events, again, events_of(folder))


def test_ctrl_c_stops_soon_and_says_how_to_go_on(story: Story) -> None:
    assert story.interrupted.returncode == 130, story.interrupted.stderr
    assert "go on with: stillhouse run my_task.yaml --trials 16" in story.interrupted.stderr
    assert "Traceback" not in story.interrupted.stderr
    stages = [e["status"] for e in story.events_at_stop if e["kind"] == "stage" and e["stage"] == "search"]
    assert stages == ["started", "interrupted"]


def test_going_on_trains_no_finished_trial_again(story: Story) -> None:
    assert story.finished.returncode == 0, story.finished.stderr
    ends = Counter(event["trial"] for event in story.events if event["kind"] == "trial_ended")
    assert set(ends.values()) == {1}
    epochs = Counter((event["trial"], event["epoch"]) for event in story.events if event["kind"] == "epoch")
    assert set(epochs.values()) == {1}
    starts = Counter(event["trial"] for event in story.events if event["kind"] == "trial_started")
    assert set(starts.values()) == {1}
    before = {e["trial"] for e in story.events_at_stop if e["kind"] == "trial_ended"}
    assert len(before) >= 3
    teachers = [e["status"] for e in story.events if e["kind"] == "stage" and e["stage"] == "teacher"]
    assert teachers == ["started", "finished"]


def test_epochs_of_every_student_are_whole_and_in_order(story: Story) -> None:
    seen: dict[str, list[int]] = {}
    for event in story.events:
        if event["kind"] == "epoch":
            seen.setdefault(event["trial"], []).append(event["epoch"])
    assert all(epochs == list(range(1, len(epochs) + 1)) for epochs in seen.values())


def test_a_third_run_trains_nothing_and_gives_the_same_champion(story: Story) -> None:
    assert story.again.returncode == 0, story.again.stderr
    assert story.events_again == story.events
    assert json.loads(story.again.stdout) == json.loads(story.finished.stdout) == story.summary


def test_the_summary_holds_what_programs_ask_for(story: Story) -> None:
    summary = story.summary
    assert set(summary) == {
        "experiment", "out", "seconds", "teacher", "cache", "trials", "finalists", "champion", "mlflow",
        "ledger",
    }  # fmt: skip
    assert set(summary["teacher"]) >= {"params", "selection_accuracy", "test_accuracy"}
    assert set(summary["cache"]) >= {"uri", "fingerprint", "rows", "bytes"}
    assert len(summary["trials"]) == TRIALS
    for trial in summary["trials"]:
        assert set(trial) >= {
            "id", "status", "objective", "hyper_parameters", "epochs", "selection_accuracy",
        }  # fmt: skip
    controls = [finalist["control"] for finalist in summary["finalists"]]
    for group in (*controls, *summary["finalists"]):
        assert len(group["seeds"]) == len(group["selection_accuracies"]) == len(group["test_accuracies"]) == 2
    champion = summary["champion"]
    assert set(champion) >= {"trial_id", "params", "size_bytes", "latency_ms", "exports"}
    for exported in champion["exports"].values():
        assert Path(exported["path"]).is_file()
        assert exported["max_abs_difference"] < 1e-3
        assert exported["agreement"] > 0.99
        assert exported["images"] >= 2
    assert champion["latency_64_ms"] > 0
    assert set(champion["exports"]["onnx"]["latency"]) >= {"batch_1_median_ms", "batch_64_p95_ms", "threads"}
    assert {trial["objective"] for trial in summary["trials"]} == {"kd", "dkd", "crld"}
    assert set(summary["seconds"]) >= {
        "teacher",
        "cache",
        "search",
        "finalists",
        "test",
        "export",
        "register",
    }


def test_mlflow_has_each_student_once_and_nothing_left_running(story: Story) -> None:
    prepare_mlflow()
    place = story.summary["mlflow"]
    client = MlflowClient(place["tracking_uri"])
    runs = client.search_runs([place["experiment_id"]], max_results=1000)
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED", "FAILED"}
    children = [run for run in runs if "trial_id" in run.data.tags]
    ids = Counter(run.data.tags["trial_id"] for run in children)
    assert set(ids.values()) == {1}
    started = {event["trial"] for event in story.events if event["kind"] == "trial_started"}
    groups = {event["group"]: event["trials"] for event in story.events if event["kind"] == "group"}
    assert set(ids) == started | groups.keys()
    run_of = {run.data.tags["trial_id"]: run for run in children}
    for group, seeds in groups.items():
        above = {run_of[seed].data.tags["mlflow.parentRunId"] for seed in seeds}
        assert above == {run_of[group].info.run_id}
    parents = [run for run in runs if run.info.run_id == place["parent_run_id"]]
    assert [run.info.status for run in parents] == ["FINISHED"]


def test_every_epoch_and_every_loss_term_is_in_mlflow(story: Story) -> None:
    prepare_mlflow()
    place = story.summary["mlflow"]
    client = MlflowClient(place["tracking_uri"])
    champion = story.summary["champion"]["trial_id"]
    runs = client.search_runs([place["experiment_id"]], f"tags.trial_id = '{champion}'")
    (run,) = runs
    wanted = [e["metrics"] for e in story.events if e["kind"] == "epoch" and e["trial"] == champion]
    for name in wanted[0]:
        history = client.get_metric_history(run.info.run_id, name)
        assert [point.step for point in history] == list(range(1, len(wanted) + 1)), name
    assert "acc" in run.data.metrics
    assert "test_acc" in run.data.metrics
    assert run.data.metrics.keys() >= {"latency_64_ms", "onnx_latency_ms", "onnx_latency_64_p95_ms"}
    version = client.get_model_version_by_alias(place["registered_model"], "champion")
    assert str(version.version) == place["version"]
    assert version.run_id == run.info.run_id
