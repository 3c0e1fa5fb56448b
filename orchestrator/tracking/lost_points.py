"""Where ledger and MLflow differ: runs that MLflow lost, and figures that the ledger lost (it was cut, or an
older copy put back)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from orchestrator.records.events import Event, GroupAdded, TrialStarted
from orchestrator.tracking.changes import RunChange
from orchestrator.tracking.projection import Projection
from orchestrator.tracking.store import KnownRun

# One of these is among the points of each event: a ledger may have lost all that told of the others.
_ALWAYS: Final = frozenset({"seconds", "epochs", "params"})
"""Of an epoch, a trial's end, and a student's costs."""
_PARENTS: Final = ("champion_", "teacher_", "seconds/", "preparation ")
"""How those of the parent begin: of champion, teacher and stages, and of what a stage trains beside it."""


def with_lost_points(
    events: Iterable[Event], parent: KnownRun, runs: Mapping[str, KnownRun]
) -> list[str | None]:
    """The trials of such runs, and None where the parent is one of them.

    MLflow keeps points of equal step and another time side by side: what is trained again would be there
    twice, and nothing removes a point. A ledger loses its end, so the latest points of a run are enough. What
    a user logged under another name is no loss.
    """
    changes = Projection().fold(events)
    written = {change.trial: _written(change) for change in changes}
    ours = {key for points in written.values() for key, _, _ in points}
    known: list[tuple[str | None, KnownRun]] = [(None, parent), *runs.items()]
    lost = {trial: run.latest - written.get(trial, set()) for trial, run in known}
    return [trial for trial, points in lost.items() if any(_is_ours(key, ours) for key, _, _ in points)]


def _written(change: RunChange) -> set[tuple[str, int, int]]:
    return {(point.key, point.time_ms, point.step) for point in (*change.points, *change.figures)}


def _is_ours(key: str, written: Collection[str]) -> bool:
    return key in written or key in _ALWAYS or key.startswith(_PARENTS)


def first_to_write(events: Sequence[Event], runs: Collection[str]) -> int:
    """The number of the first of these events that makes a run which is not there; else their count."""
    made = ((event.seq, _made_by(event)) for event in events)
    return min((seq for seq, run in made if run is not None and run not in runs), default=len(events))


def _made_by(event: Event) -> str | None:
    """The trial or group whose run an event makes, if it makes one."""
    if isinstance(event, TrialStarted):
        return event.trial
    return event.group if isinstance(event, GroupAdded) else None
