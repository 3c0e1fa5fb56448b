"""What MLflow's runs are told of a student beside its curves."""

from __future__ import annotations

from orchestrator.records.events import EpochEnded, TrialStarted
from orchestrator.tracking.projection import Projection
from trainables.config import Role

START = TrialStarted(
    trial="t", role=Role.SEARCH, search="s", objective="kd", parameters={}, spec={"seed": 1}, time_ms=1
)


def epoch(number: int, precision: str | None) -> EpochEnded:
    return EpochEnded(trial="t", epoch=number, metrics={}, precision=precision, time_ms=number)


def test_a_run_says_what_its_student_is_trained_in_once() -> None:
    projection = Projection()
    (first,) = projection.fold([START, epoch(1, "bf16 (table 1)")])
    assert first.tags["precision"] == "bf16 (table 1)"
    assert all("precision" not in change.tags for change in projection.fold([epoch(2, "bf16 (table 1)")]))
    (changed,) = projection.fold([epoch(3, "bf16 (as its training began)")])
    assert changed.tags["precision"] == "bf16 (as its training began)"


def test_a_ledger_of_an_earlier_version_gives_no_such_tag() -> None:
    (change,) = Projection().fold([START, epoch(1, None)])
    assert "precision" not in change.tags
