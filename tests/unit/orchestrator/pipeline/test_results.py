"""What goes beside the students' runs: their costs once, also after a run of an earlier version."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from orchestrator.pipeline.results import RunResults
from orchestrator.records.costs import StudentCosts
from orchestrator.records.events import FiguresAdded
from orchestrator.records.ledger import Ledger, TrialRecord
from orchestrator.records.selection import choose_champion, group_trials
from orchestrator.tracking.recorder import MlflowRecorder
from trainables.training.train_teacher import TeacherFacts

OLD = StudentCosts(params=10.0, size_bytes=40.0, latency_ms=0.1)
NEW = OLD.with_overrides(latency_p95_ms=0.2, latency_device="Intel Xeon")


class Recorder:
    """Notes what would be written, and keeps it in the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.written: list[tuple[str, dict[str, float], str | None]] = []

    def record_figures(self, trial: str, figures: dict[str, float], **device: Any) -> None:
        self.written.append((trial, figures, device["latency_device"]))
        self.ledger.append(FiguresAdded(trial=trial, figures=dict(figures), **device))


def written(results: RunResults, ledger: Ledger) -> list[tuple[str, dict[str, float], str | None]]:
    recorder = Recorder(ledger)
    results.record_figures(cast(MlflowRecorder, recorder), ledger)
    return recorder.written


def outcome_of(finalist: TrialRecord, costs: StudentCosts) -> RunResults:
    return RunResults(
        teacher=cast(TeacherFacts, None),
        cache=None,
        records=[],
        finalists=[finalist],
        control=[],
        champion=choose_champion(group_trials([finalist]), {finalist.trial: costs.numbers()}, ()),
        costs={finalist.trial: costs},
        tested={finalist.trial: {"accuracy": 0.9}},
    )


def test_costs_are_written_once_with_the_device(
    make_record: Callable[..., TrialRecord], tmp_path: Path
) -> None:
    ledger, finalist = Ledger(tmp_path), make_record("f", 0.9)
    figures = {**NEW.numbers(), "test_acc": 0.9}
    assert written(outcome_of(finalist, NEW), ledger) == [("f", figures, "Intel Xeon")]
    assert written(outcome_of(finalist, NEW), Ledger(tmp_path)) == []


def test_what_an_earlier_version_wrote_is_not_written_again(
    make_record: Callable[..., TrialRecord], tmp_path: Path
) -> None:
    ledger, finalist = Ledger(tmp_path), make_record("f", 0.9)
    figures: dict[str, int | float] = {
        "params": 10.0,
        "size_bytes": 40.0,
        "latency_ms": 0.1,
        "test_acc": 0.9,
    }
    ledger.append(FiguresAdded(trial="f", figures=figures))
    assert written(outcome_of(finalist, OLD), ledger) == []
