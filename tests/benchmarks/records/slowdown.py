"""What recording costs the search beside which it goes on."""

from __future__ import annotations

import statistics
from contextlib import closing
from dataclasses import replace
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
TRIALS: Final = 12
EPOCHS: Final = 30
ROUNDS: Final = 7
_PATIENCE_S: Final = 900.0


def record_slowdown(trials: int = TRIALS, epochs: int = EPOCHS, rounds: int = ROUNDS) -> Figure:
    """Seconds of a search that is recorded over those of one that is not; the median of pairs in turns."""
    experiment = tiny_experiment(
        trials,
        slots=2,
        data={"name": "digits"},
        student={"name": "convnet", "width": 8},
        training={"epochs": epochs, "batch_size": 64},
    )
    plain_s: list[float] = []
    recorded_s: list[float] = []
    with connect("local", cpus=2), scratch_folder() as folder, search_of(experiment, folder) as search:
        search.start_slots()
        # The first search waits for workers' imports and data, the first recorder makes the tables.
        _seconds(search, "warm", folder, recorded=True)
        for number in range(rounds):
            turns = [("plain", plain_s, False), ("recorded", recorded_s, True)]
            for name, found, is_recorded in turns if number % 2 else reversed(turns):
                found.append(_seconds(search, f"{name}-{number}", folder, recorded=is_recorded))
    ratios = [one / other for one, other in zip(recorded_s, plain_s, strict=True)]
    how = (
        f"median of {rounds} ratios ({min(ratios):.3f} to {max(ratios):.3f}) of a search with the recorder "
        f"writing into an SQLite file beside it, over one without, in turns; {trials} trials of {epochs} "
        f"epochs of a convnet of width 8 on the digits, 2 slots of one CPU each, through Tuner, "
        f"StudentTrial, broker and slots; a search without takes {statistics.median(plain_s):.1f} s; "
        f"{surroundings('ray', 'torch', 'mlflow')}"
    )
    return Figure(statistics.median(ratios), "x", how, SLOWDOWN)


def _seconds(search: Search, name: str, folder: Path, *, recorded: bool) -> float:
    """Wall seconds of one search, with a ledger of its own; what the recorder has left is not waited for."""
    out = folder / name
    out.mkdir()
    with closing(TimedLedger(out)) as ledger:
        recorder = recorder_of(ledger, default_tracking_uri(folder), out) if recorded else None
        if recorder is not None:
            recorder.start()
            _require(recorder, len(ledger.events()))
        seconds = replace(search, ledger=ledger, folder=out).run(RANDOM_SPACE, name=name)
        if recorder is not None:
            left = recorder.close("FINISHED", timeout_s=_PATIENCE_S)
            if left or left.refused:
                raise RuntimeError(f"the search {name} was not recorded as a whole: {left}")
    return seconds


def _require(recorder: MlflowRecorder, events: int) -> None:
    """Wait until the store is open, which a run does before its search."""
    left = recorder.flush(_PATIENCE_S)
    if left:
        raise RuntimeError(f"the store was not opened, {events} events wait: {left}")
