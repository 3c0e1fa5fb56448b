"""The real command line on a small task, as a child process that tests can signal and watch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from orchestrator.tracking.store import prepare_mlflow
from tests.integration.watched_search import events_in

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 900.0

EXPERIMENT = """\
name: task
data: {name: digits, train_limit: 400}
teacher: {model: {name: mlp}, training: {epochs: 1}}
student: {factory: "tests.integration.fault_students:slow", arguments: {seconds: 0.05}}
views:
  weak: {views: 1, recipe: [{op: crop_flip, padding: 1, flip_probability: 0}]}
training: {epochs: 4, batch_size: 64, checkpoint_every: 1, precision: fp32}
space: space.yaml
budget: {trials: 6, finalists: 1, seeds: 1}
cluster: {slots: 1}
"""
SPACE = """\
name: space
objectives: {OBJECTIVE: {}}
training: {lr: {loguniform: [0.001, 0.1]}}
search: {algorithm: optuna}
scheduler: {name: asha, grace_period: 1, reduction_factor: 2}
"""


def with_runs(events: list[dict[str, Any]]) -> set[str]:
    """The students and the groups of seeds that MLflow has a run of."""
    made_by = {"trial_started": "trial", "group": "group"}
    return {event[made_by[event["kind"]]] for event in events if event["kind"] in made_by}


class Task:
    """An experiment file in a folder, and the command that runs it."""

    def __init__(
        self,
        folder: Path,
        out: Path,
        *,
        objective: str = "ce",
        experiment: str = EXPERIMENT,
        space: str = SPACE,
    ) -> None:
        self.folder, self.out = folder, out
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "task.yaml").write_text(experiment)
        (folder / "space.yaml").write_text(space.replace("OBJECTIVE", objective))

    def start(self, *words: str, command: str = "run") -> subprocess.Popen[str]:
        options = [command, "task.yaml", "--out", str(self.out), *words]
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator", *options],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def events(self) -> list[dict[str, Any]]:
        return events_in(self.out)

    def wait_for(
        self, process: subprocess.Popen[str], happened: Callable[[list[dict[str, Any]]], bool]
    ) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not happened(self.events()):
            if process.poll() is not None:
                raise AssertionError(f"ended too early:\n{process.communicate()}")
            if time.monotonic() > deadline:
                process.kill()
                raise AssertionError(f"did not happen in time:\n{process.communicate()}\n{self.events()}")
            time.sleep(0.05)

    def kill_when(
        self, process: subprocess.Popen[str], happened: Callable[[list[dict[str, Any]]], bool]
    ) -> None:
        """SIGKILL the driver while this holds: it is halted first, since a trial may end meanwhile."""
        while True:
            self.wait_for(process, happened)
            process.send_signal(signal.SIGSTOP)
            if happened(self.events()):
                process.kill()
                return
            process.send_signal(signal.SIGCONT)

    def mlflow_runs(self) -> list[Run]:
        prepare_mlflow()
        client = MlflowClient(f"sqlite:///{self.out / 'mlflow.db'}")
        experiments = [e.experiment_id for e in client.search_experiments() if e.name != "Default"]
        return list(client.search_runs(experiments, max_results=1000))


def finish(process: subprocess.Popen[str], timeout_s: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"did not end in {timeout_s:.0f} s:\n{process.communicate()}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def running(events: list[dict[str, Any]]) -> dict[str, int]:
    """Trials that have started and not ended, with the epochs that they have told."""
    open_ones: dict[str, int] = {}
    for event in events:
        if event["kind"] == "trial_started":
            open_ones[event["trial"]] = 0
        elif event["kind"] == "epoch":
            open_ones[event["trial"]] = event["epoch"]
        elif event["kind"] == "trial_ended":
            open_ones.pop(event["trial"])
    return open_ones


def n_ended(events: list[dict[str, Any]]) -> int:
    return sum(event["kind"] == "trial_ended" for event in events)
