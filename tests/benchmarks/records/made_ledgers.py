"""Ledgers of searches that nobody trained, for measurements of the record."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from orchestrator.records.events import EpochEnded, KnownEvent, TrialEnded, TrialStarted
from orchestrator.records.ledger import Ledger
from orchestrator.tracking.parent import ParentFacts
from orchestrator.tracking.recorder import MlflowRecorder
from tests.synthetic_run import START_MS, LedgerLines

METRICS: Final = (
    "selection/accuracy",
    "selection/nll",
    "selection/ece",
    "selection/agreement",
    "selection/kl",
    "train/loss",
    "train/kept_weak",
    "train/kept_strong",
    "terms/ce",
    "terms/kd",
    "seconds",
    "images_per_s",
)
"""Of an epoch: twelve."""
EXPERIMENT: Final = "stillhouse/benchmark"
_SECOND_MS: Final = 1000


def write_ledger(folder: Path, *, trials: int, epochs: int) -> Ledger:
    """A ledger of completed trials, one after the other, each with the twelve metrics in every epoch."""
    lines = LedgerLines()
    now_ms = float(START_MS)
    with (folder / "ledger.jsonl").open("wb") as file:
        for number in range(trials):
            for event in _events(f"kd-{number:05}", number, epochs):
                now_ms += _SECOND_MS
                lines.write(event, now_ms)
            # A trial at a time: the memory of all lines would count as the recorder's.
            file.write(b"".join(lines.lines))
            lines.clear()
    return Ledger(folder)


def recorder_of(ledger: Ledger, uri: str, out: Path) -> MlflowRecorder:
    """A recorder that has not started."""
    facts = ParentFacts("benchmark", {"name": "benchmark"}, searched={"temperature", "training.lr"})
    return MlflowRecorder(ledger, tracking_uri=uri, experiment_name=EXPERIMENT, out=out, parent=facts)


def _events(trial: str, number: int, epochs: int) -> list[KnownEvent]:
    parameters = {"temperature": 1 + number % 8, "training.lr": 1e-3 * (1 + number % 97)}
    start = TrialStarted(
        trial=trial,
        role="search",
        search="5ea4c4",
        objective="kd",
        parameters=parameters,
        spec={"seed": number},
    )
    found = [_metrics(number, epoch) for epoch in range(1, epochs + 1)]
    told = [EpochEnded(trial=trial, epoch=place, metrics=each) for place, each in enumerate(found, start=1)]
    end = TrialEnded(
        trial=trial,
        status="completed",
        reason=None,
        epochs=epochs,
        best_epoch=epochs,
        best=found[-1],
        final=found[-1],
        checkpoint=None,
    )
    return [start, *told, end]


def _metrics(number: int, epoch: int) -> dict[str, float]:
    return {name: (1 + number % 89) / (place + 2 + epoch) for place, name in enumerate(METRICS)}
