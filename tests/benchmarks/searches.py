"""What a search costs beside the training: its start, and each trial; through the real path.

Tuner, `StudentTrial`, broker and slots are the product's own, in the order in which the pipeline uses them.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import ray

from cluster.session import connect
from orchestrator.console import Console
from orchestrator.experiment import ExperimentConfig
from orchestrator.ledger import Ledger
from orchestrator.loading import load_experiment
from orchestrator.proposals import Composer
from orchestrator.search import SearchTask, run_search
from orchestrator.workers import Workers
from search_spaces.space import SpaceConfig
from tests.benchmarks.documented import EPOCHS, documented_search_s
from tests.benchmarks.figures import Bound, Figure
from tests.benchmarks.surroundings import surroundings
from trainables.config import BenchSpec

OVERHEAD_RATIO: Final = Bound(20, at_least=True)
FIRST_REPORT_S: Final = Bound(40)
SLOTS_UP_TIMEOUT_S: Final = 600.0

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


def trial_overhead_ratio(trials: int = 8) -> Figure:
    """Seconds a trial costs by the documented recipe, over seconds in a warm slot; both one at a time."""
    experiment = _tiny_experiment(trials)
    # Four CPUs by Ray's count, on any machine: a documented trial holds one and waits for its worker's.
    # Ours comes first, so that the other finds the files of Ray and PyTorch in the page cache.
    with connect("local", cpus=4), _folder() as folder:
        with _search(experiment, folder) as search:
            up_s = search.start_slots()
            ours_s = search.run()
            later_s = search.later_trials_s()
        documented_s = documented_search_s(trials, folder)
    how = (
        f"{trials} trials of {EPOCHS} epochs one at a time, in one Ray session with the product's settings "
        f"of Ray: a Tune function that fits a TorchTrainer of 1 worker with {EPOCHS} empty reports took "
        f"{documented_s / trials:.2f} s a trial; Tuner, StudentTrial, broker and 1 warm slot that really "
        f"trains an mlp on 32 digits, ranks and keeps it took {ours_s / trials:.3f} s a trial (the Tuner's "
        f"start shared out, {later_s:.3f} s for each after the first; the slot was up after {up_s:.1f} s, "
        f"which is not counted); {surroundings('ray', 'torch')}"
    )
    return Figure(documented_s / ours_s, "x", how, OVERHEAD_RATIO)


def first_report_seconds(slots: int = 2) -> Figure:
    """Seconds from the start of a search, with no slot up, to its first epoch in the driver's ledger."""
    several_s = _first_report_s(slots)
    one_s = _first_report_s(1)
    how = (
        f"from the start of {slots} slots and the Tuner (Ray up, driver's imports done, as in a run) to the "
        f"first epoch in the ledger, for the shipped experiment digits' data, views and student with "
        f"cross-entropy, {slots} logical CPUs; with 1 slot on 1 CPU, measured after it, {one_s:.1f} s; "
        f"{surroundings('ray', 'torch')}"
    )
    return Figure(several_s, "s", how, FIRST_REPORT_S)


@dataclass(frozen=True)
class _Search:
    """A search that has not begun, with what the pipeline would give it."""

    experiment: ExperimentConfig
    workers: Workers
    ledger: Ledger
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

    def run(self) -> float:
        """The wall seconds of the search.

        Raises:
            RuntimeError: not every trial was completed.
        """
        experiment = self.experiment
        bench = BenchSpec(
            data=experiment.data,
            views=experiment.views,
            view_seed=0,
            cache_uri=None,
            cache_manifest=None,
            checkpoints=str(self.folder / "students"),
        )
        composer = Composer(experiment, SPACE, bench, "benchmark")
        task = SearchTask(composer, self.workers.broker, self.workers.plan.slots, self.folder / "tune")
        began = time.monotonic()
        ended = run_search(task, self.ledger, self.console)
        seconds = time.monotonic() - began
        if ended["completed"] != experiment.budget.trials:
            raise RuntimeError(f"{experiment.budget.trials} trials were to be completed; {ended}")
        return seconds

    def later_trials_s(self) -> float:
        """Mean seconds between the ends of successive trials: what a trial costs once Tune runs."""
        ended_ms = [event["time_ms"] for event in self.ledger.events() if event["kind"] == "trial_ended"]
        return float(ended_ms[-1] - ended_ms[0]) / 1000 / max(len(ended_ms) - 1, 1)


def _first_report_s(slots: int) -> float:
    shipped = load_experiment("digits").config
    experiment = shipped.with_overrides(
        training={**shipped.training.plain(), "epochs": 2},
        budget={"trials": slots},
        cluster={"slots": slots, "gpus_per_worker": 0},
    )
    with (
        connect("local", cpus=slots),
        _folder() as folder,
        _search(experiment, folder) as search,
    ):
        began_ms = time.time_ns() // 1_000_000
        search.workers.start_slots()
        search.run()
        first_ms = next(event["time_ms"] for event in search.ledger.events() if event["kind"] == "epoch")
    return float(first_ms - began_ms) / 1000


def _tiny_experiment(trials: int) -> ExperimentConfig:
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
            "cluster": {"slots": 1, "gpus_per_worker": 0},
        }
    )


@contextmanager
def _search(experiment: ExperimentConfig, folder: Path) -> Iterator[_Search]:
    console = Console(out=sys.stderr)
    ledger = Ledger(folder)
    try:
        with Workers(experiment, folder, console) as workers:
            # The pipeline has its broker, and so its session, before the search.
            _ = workers.plan
            yield _Search(experiment, workers, ledger, folder, console)
    finally:
        ledger.close()


@contextmanager
def _folder() -> Iterator[Path]:
    # Workers that are on their way out may still write there.
    with tempfile.TemporaryDirectory(prefix="benchmark-", ignore_cleanup_errors=True) as name:
        yield Path(name)
