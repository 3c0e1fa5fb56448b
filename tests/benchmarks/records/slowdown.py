"""What recording costs the search beside which it goes on."""

from __future__ import annotations

import statistics
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cluster.session import connect
from orchestrator.config.tracking_uri import default_tracking_uri
from orchestrator.tracking.recorder import MlflowRecorder
from tests.benchmarks.figures import Bound, Figure
from tests.benchmarks.records.made_ledgers import recorder_of
from tests.benchmarks.scale import RANDOM_SPACE
from tests.benchmarks.slot_searches import Search, TimedLedger, scratch_folder, search_of, tiny_experiment
from tests.benchmarks.surroundings import surroundings

SLOWDOWN: Final = Bound(1.02)
TRIALS: Final = 4
EPOCHS: Final = 8
ROUNDS: Final = 3
STUDENT: Final = {"name": "resnet20", "width": 32}
"""An epoch of it takes seconds, as of most students that people search for."""
_SLOTS: Final = 2
_PATIENCE_S: Final = 900.0


@dataclass(frozen=True)
class _Took:
    """What one search took."""

    wall_s: float
    driver_s: float
    """CPU seconds of the driver, in which the recorder runs."""


def record_slowdown(trials: int = TRIALS, epochs: int = EPOCHS, rounds: int = ROUNDS) -> Figure:
    """Time of a search that is recorded over that of one that is not, where slots use all cores.

    What the recorder takes from the slots is CPU time, so that is measured: seconds of a search would have to
    be compared to a hundredth, which no shared machine allows.
    """
    experiment = tiny_experiment(
        trials,
        slots=_SLOTS,
        data={"name": "digits"},
        student=STUDENT,
        training={"epochs": epochs, "batch_size": 64, "precision": "fp32"},
    )
    found: dict[bool, list[_Took]] = {False: [], True: []}
    with connect("local", cpus=_SLOTS), scratch_folder() as folder, search_of(experiment, folder) as search:
        search.start_slots()
        # The first search waits for workers' imports and data, the first recorder makes the tables.
        _searched(search, "warm", folder, recorded=True)
        for number in range(rounds):
            for recorded in (True, False) if number % 2 else (False, True):
                found[recorded].append(_searched(search, f"{number}-{recorded}", folder, recorded=recorded))
    plain, recorded_too = found[False], found[True]
    wall_s = statistics.median(took.wall_s for took in plain)
    more_s = statistics.median(
        with_it.driver_s - without.driver_s for with_it, without in zip(recorded_too, plain, strict=True)
    )
    how = (
        f"1 + CPU seconds that the driver takes more with the recorder, which writes into an SQLite file "
        f"({more_s:.2f} s, median of {rounds} pairs in turns: {1000 * more_s / trials:.0f} ms a trial, "
        f"whatever its student), over those of {_SLOTS} cores in a search of {wall_s:.1f} s: {trials} trials "
        f"of {epochs} epochs of {STUDENT['name']} of width {STUDENT['width']} on the digits, {_SLOTS} slots "
        f"of one CPU each, through Tuner, StudentTrial, broker and slots; "
        f"{surroundings('ray', 'torch', 'mlflow')}"
    )
    return Figure(1 + more_s / (_SLOTS * wall_s), "x", how, SLOWDOWN)


def _searched(search: Search, name: str, folder: Path, *, recorded: bool) -> _Took:
    """One search, with a ledger of its own; what the recorder has left is counted, and not waited for."""
    out = folder / name
    out.mkdir()
    with closing(TimedLedger(out)) as ledger:
        recorder = recorder_of(ledger, default_tracking_uri(folder), out) if recorded else None
        if recorder is not None:
            recorder.start()
            _require(recorder, len(ledger.events()))
        before_s = time.process_time()
        wall_s = replace(search, ledger=ledger, folder=out).run(RANDOM_SPACE, name=name)
        if recorder is not None:
            left = recorder.close("FINISHED", timeout_s=_PATIENCE_S)
            if left or left.refused:
                raise RuntimeError(f"the search {name} was not recorded as a whole: {left}")
        return _Took(wall_s, time.process_time() - before_s)


def _require(recorder: MlflowRecorder, events: int) -> None:
    """Wait until the store is open, which a run does before its search."""
    left = recorder.flush(_PATIENCE_S)
    if left:
        raise RuntimeError(f"the store was not opened, {events} events wait: {left}")
