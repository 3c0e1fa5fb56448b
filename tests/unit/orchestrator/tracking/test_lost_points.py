"""Which runs of MLflow hold what the ledger lost: never for a figure of the user's own."""

from __future__ import annotations

import pytest

from orchestrator.records.events import (
    EpochEnded,
    Event,
    FiguresAdded,
    StageEpoch,
    StageEvent,
    TrialEnded,
    TrialStarted,
)
from orchestrator.tracking.lost_points import with_lost_points
from orchestrator.tracking.projection import Projection
from orchestrator.tracking.store import KnownRun
from trainables.config import Role

METRICS = {"train/loss": 1.0, "selection/accuracy": 0.5, "seconds": 2.0}
LEDGER: list[Event] = [
    StageEvent(stage="teacher", key="k", status="finished", seconds=1.0, result={}, time_ms=1),
    StageEpoch(stage="preparation ss_head", key="k", epoch=1, metrics={"train/loss": 0.5}, time_ms=1),
    TrialStarted(
        trial="t", role=Role.SEARCH, search="s", objective="kd", parameters={}, spec={"seed": 1}, time_ms=2
    ),
    EpochEnded(trial="t", epoch=1, metrics=METRICS, time_ms=3),
    TrialEnded(
        trial="t",
        status="completed",
        reason=None,
        epochs=1,
        best_epoch=1,
        best=METRICS,
        final=METRICS,
        checkpoint=None,
        time_ms=4,
    ),
    FiguresAdded(trial="t", figures={"params": 10.0, "size_bytes": 40.0}, time_ms=5),
    FiguresAdded(trial=None, figures={"champion_acc": 0.5}, time_ms=6),
]


def run_of(trial: str | None, *own: str) -> KnownRun:
    """As MLflow holds it where it has all of the ledger, and figures of the user's own."""
    changes = [change for change in Projection().fold(LEDGER) if change.trial == trial]
    told = [point for change in changes for point in (*change.points, *change.figures)]
    points = {(point.key, point.time_ms, point.step) for point in told}
    return KnownRun("id", "FINISHED", frozenset({*points, *((name, 9, 0) for name in own)}))


def test_a_metric_that_the_user_logged_is_no_loss() -> None:
    mine = "my_own_metric"
    assert with_lost_points([], KnownRun("p", "FINISHED", frozenset({(mine, 1, 0)})), {}) == []
    assert with_lost_points(LEDGER, run_of(None, mine), {"t": run_of("t", mine)}) == []


@pytest.mark.parametrize(
    ("kept", "lost"),
    [(7, []), (6, [None]), (5, [None, "t"]), (4, [None, "t"]), (3, [None, "t"]), (0, [None, "t"])],
)
def test_what_the_ledger_lost_is_found_also_where_it_has_no_other_event_of_that_kind(
    kept: int, lost: list[str | None]
) -> None:
    assert with_lost_points(LEDGER[:kept], run_of(None), {"t": run_of("t")}) == lost


def test_a_ledger_that_lost_what_a_teacher_was_prepared_with_is_found() -> None:
    kept = [event for event in LEDGER if not isinstance(event, StageEpoch)]
    assert with_lost_points(kept, run_of(None), {"t": run_of("t")}) == [None]
