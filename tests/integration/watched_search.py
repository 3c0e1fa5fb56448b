"""A small search without a teacher: what tests of faults run, watch and kill."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ray

from orchestrator.config.schema import ExperimentConfig
from orchestrator.pipeline.workers import Workers
from orchestrator.records.ledger import Ledger
from orchestrator.search.driver import SearchFollower, SearchTask, run_search
from orchestrator.search.trial_specs import Composer
from orchestrator.terminal.console import Console
from search_spaces.space import SpaceConfig
from trainables.config import WorkbenchSpec

PATIENCE_S = 600.0
TRAIN_ROWS = 400


def experiment_of(student: dict[str, Any], **training: Any) -> ExperimentConfig:
    return ExperimentConfig.from_plain(
        {
            "name": "faults",
            "data": {"name": "digits", "train_limit": TRAIN_ROWS},
            "teacher": {"model": {"name": "mlp"}},
            "student": student,
            "views": {"weak": {"views": 1, "recipe": []}},
            "training": {
                "epochs": 4,
                "batch_size": 64,
                "checkpoint_every": 1,
                "precision": "fp32",
                **training,
            },
            "space": "inline",
            "budget": {"trials": 4, "max_failed_trials": 10},
            "cluster": {"slots": 1, "students_per_slot": 1},
        }
    )


def space_of(**training: list[Any]) -> SpaceConfig:
    grid = {name: {"grid_search": values} for name, values in training.items()}
    return SpaceConfig.from_plain(
        {
            "name": "faults",
            "objectives": {"ce": {}},
            "training": grid,
            "search": {"algorithm": "grid"},
            "scheduler": {"name": "fifo"},
        }
    )


@dataclass(frozen=True)
class Search:
    """One search in a folder of its own, on shared slots."""

    workers: Workers
    experiment: ExperimentConfig
    space: SpaceConfig
    folder: Path
    told_to_tune: list[tuple[str, int]] = field(default_factory=list)
    """Trial and epoch of every report that reached Tune."""

    @property
    def composer(self) -> Composer:
        workbench = WorkbenchSpec(
            data=self.experiment.data,
            views=self.experiment.views,
            view_seed=1,
            cache_uri=None,
            cache_manifest=None,
            checkpoints=str(self.folder / "students"),
        )
        return Composer(self.experiment, self.space, workbench, self.folder.name)

    def run(self) -> list[dict[str, Any]]:
        """The ledger's events, once the search has ended."""
        ledger = Ledger(self.folder)
        try:
            task = SearchTask(self.composer, self.workers.broker, 1, self.folder / "tune")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(SearchFollower, "on_trial_result", self._noting(SearchFollower.on_trial_result))
                run_search(task, ledger, Console(json_only=True))
        finally:
            ledger.close()
        return [event.plain() for event in ledger.events()]

    def _noting(self, callback: Callable[..., None]) -> Callable[..., None]:
        """Tune's own call for each report, noted and passed on."""

        def note(follower: SearchFollower, *args: Any, **info: Any) -> None:
            result = info["result"]
            self.told_to_tune.append((result["trial"], result["epoch"]))
            callback(follower, *args, **info)

        return note


def events_in(folder: Path) -> list[dict[str, Any]]:
    if not (folder / "ledger.jsonl").exists():
        return []
    ledger = Ledger(folder)
    ledger.close()
    return [event.plain() for event in ledger.events()]


def epochs_of(events: list[dict[str, Any]]) -> Counter[tuple[str, int]]:
    return Counter((event["trial"], event["epoch"]) for event in events if event["kind"] == "epoch")


def ends_of(events: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    ends = [event for event in events if event["kind"] == "trial_ended"]
    assert len({event["trial"] for event in ends}) == len(ends), "a trial ended twice"
    return {event["trial"]: event for event in ends}


def pids_of(class_name: str) -> list[int]:
    return [
        actor["Pid"] for actor in living_actors() if actor["ActorClassName"] == class_name and actor["Pid"]
    ]


def living_actors() -> list[dict[str, Any]]:
    """As Ray's own store has them: the State API asks a dashboard, which an embedded cluster is without."""
    found: dict[str, dict[str, Any]] = ray._private.state.actors()
    return [actor for actor in found.values() if actor["State"] == "ALIVE"]


def wait_until(happened: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not happened():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {timeout_s:.0f} s")
        time.sleep(0.05)


def wait_for_epochs(folder: Path, count: int) -> None:
    wait_until(lambda: len(epochs_of(events_in(folder))) >= count, f"epoch {count} in the ledger")


@contextmanager
def meanwhile(action: Callable[[], None]) -> Iterator[None]:
    """Do something in a thread beside the block; its failure is the block's."""
    failures: list[BaseException] = []

    def act() -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001  told below, in the test's own thread
            failures.append(error)

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    yield
    thread.join(PATIENCE_S)
    if failures:
        raise failures[0]
    assert not thread.is_alive()


def kill(class_name: str) -> int:
    """SIGKILL for the one actor of this class."""
    (pid,) = pids_of(class_name)
    os.kill(pid, signal.SIGKILL)
    return pid
