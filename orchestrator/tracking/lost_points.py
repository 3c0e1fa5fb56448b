"""Where ledger and MLflow differ: runs that MLflow lost, and figures that the ledger lost (it was cut, or an
older copy put back)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from orchestrator.records.events import Event, TrialStarted
from orchestrator.tracking.projection import Projection
from orchestrator.tracking.store import KnownRun


def with_lost_points(
    events: Iterable[Event], parent: KnownRun, runs: Mapping[str, KnownRun]
) -> list[str | None]:
    """The trials of such runs, and None where the parent is one of them.

    MLflow keeps points of equal step and another time side by side: what is trained again would be there
    twice, and nothing removes a point. A ledger loses its end, so the latest points of a run are enough.
    """
    changes = Projection().fold(events)
    written = {change.trial: {(p.key, p.time_ms, p.step) for p in change.points} for change in changes}
    known: list[tuple[str | None, KnownRun]] = [(None, parent), *runs.items()]
    return [trial for trial, run in known if not run.latest <= written.get(trial, set())]


def first_to_write(events: Sequence[Event], runs: Collection[str]) -> int:
    """The number of the first of these events that starts a trial without a run; their count if none does."""
    lost = (e.seq for e in events if isinstance(e, TrialStarted) and e.trial not in runs)
    return min(lost, default=len(events))
