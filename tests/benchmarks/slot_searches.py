"""A search as the pipeline would run it, for measurements: Tuner, `StudentTrial`, broker and warm slots."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import ray

from orchestrator.config.schema import ExperimentConfig
from orchestrator.pipeline.workers import Workers
from orchestrator.records.events import EventT, TrialEnded
from orchestrator.records.ledger import Ledger
from orchestrator.search.driver import SearchTask, run_search
from orchestrator.search.trial_specs import Composer
from orchestrator.terminal.console import Console
from search_spaces.space import SpaceConfig
from trainables.config import WorkbenchSpec

SLOTS_UP_TIMEOUT_S: Final = 600.0
EPOCHS: Final = 3

# Cross-entropy needs no teacher; the rate differs, since two trials of the same content would be one job.
SPACE: Final = SpaceConfig.from_plain(
    {
        "name": "benchmark",
        "objectives": {"ce": {}},
        "training": {"lr": {"loguniform": [1e-3, 1e-1]}},
        "search": {"algorithm": "optuna", "points_to_evaluate": []},
        "scheduler": {"name": "fifo"},
    }
)


class TimedLedger(Ledger):
    """A ledger that also knows, to the microsecond, when each trial ended, and how large this process was."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.ended_s: list[float] = []
        """Seconds of a monotonic clock, in the order of the ends."""
        self.resident_bytes: list[int] = []
        """Memory of this process after each of these ends."""

    def append(self, event: EventT) -> EventT:
        written = super().append(event)
        if isinstance(written, TrialEnded):
            self.ended_s.append(time.monotonic())
            self.resident_bytes.append(_resident_bytes())
        return written

    def gaps_s(self) -> list[float]:
        """Seconds between the ends of successive trials: what a trial costs once Tune runs."""
        return [after - before for before, after in pairwise(self.ended_s)]


@dataclass(frozen=True)
class Search:
    """A search that has not begun, with what the pipeline would give it."""

    experiment: ExperimentConfig
    workers: Workers
    ledger: TimedLedger
    folder: Path
    console: Console

    def start_slots(self) -> float:
        """Start the slots and wait until all are up; the seconds that took.

        Raises:
            TimeoutError: some are not up after ten minutes.
        """
        began = time.monotonic()
        self.workers.start_slots()
        while len(ray.get(self.workers.broker.slots.remote())) < self.workers.plan.slots:
            if time.monotonic() - began > SLOTS_UP_TIMEOUT_S:
                raise TimeoutError(f"slots are not up after {SLOTS_UP_TIMEOUT_S:g} s; see Ray's logs")
            time.sleep(0.1)
        return time.monotonic() - began

    def run(
        self, space: SpaceConfig = SPACE, *, name: str = "benchmark", teacher: Mapping[str, Any] | None = None
    ) -> float:
        """The wall seconds of the search; another name makes it another search of other students.

        `teacher` holds fields of `WorkbenchSpec` that say where the teacher's answers come from.

        Raises:
            RuntimeError: not every trial was completed.
        """
        experiment = self.experiment
        workbench = WorkbenchSpec(
            data=experiment.data,
            views=experiment.views,
            view_seed=0,
            **{"cache_uri": None, "cache_manifest": None, **(teacher or {})},
            checkpoints=str(self.folder / "students"),
        )
        composer = Composer(experiment, space, workbench, name)
        task = SearchTask(composer, self.workers.broker, self.workers.plan.slots, self.folder / "tune")
        began = time.monotonic()
        ended = run_search(task, self.ledger, self.console)
        seconds = time.monotonic() - began
        if ended["completed"] != experiment.budget.trials:
            raise RuntimeError(f"{experiment.budget.trials} trials were to be completed; {ended}")
        return seconds


def tiny_experiment(trials: int, *, slots: int = 1, **changes: Any) -> ExperimentConfig:
    """So little training that a trial's seconds are its overhead: one step an epoch, 30 images to rank it."""
    return ExperimentConfig.from_plain(
        {
            "name": "tiny",
            "data": {"name": "digits", "train_limit": 32, "selection_fraction": 0.02},
            "teacher": {"model": {"name": "mlp"}},
            "student": {"name": "mlp", "width": 8},
            "views": {},
            "training": {"epochs": EPOCHS, "batch_size": 32},
            "space": "benchmark",
            "budget": {"trials": trials},
            "cluster": {"slots": slots, "gpus_per_worker": 0, "students_per_slot": 1},
            **changes,
        }
    )


@contextmanager
def search_of(experiment: ExperimentConfig, folder: Path) -> Iterator[Search]:
    """A search in the current Ray session, or in one of its own; what it says goes to standard error."""
    console = Console(out=sys.stderr)
    ledger = TimedLedger(folder)
    try:
        with Workers(experiment, folder, console) as workers:
            # The pipeline has its broker, and so its session, before the search.
            _ = workers.plan
            yield Search(experiment, workers, ledger, folder, console)
    finally:
        ledger.close()


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder that goes away; workers that are on their way out may still write there."""
    with tempfile.TemporaryDirectory(prefix="benchmark-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def _resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmRSS; this measurement needs Linux")
