"""What each ledger event means for MLflow: a pure fold of events into changes of runs."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from orchestrator.records.events import (
    ArtifactAdded,
    EpochEnded,
    Event,
    FiguresAdded,
    StageEpoch,
    StageEvent,
    TeacherPrepared,
    TrialEnded,
    TrialStarted,
)
from orchestrator.tracking.names import (
    TAG_CHARACTERS,
    mlflow_key,
    param_text,
    rounded,
    run_kind,
    run_name,
    summary_figures,
)
from trainables.config import Role

_log = logging.getLogger(__name__)

RUNNING: Final = "RUNNING"
KILLED: Final = "KILLED"
CHAMPION_MARK: Final = "★"
"""Before the name of the champion's run: the first column of MLflow's table is always in sight."""
_INTERRUPTED: Final = "interrupted"
# A pruned student is KILLED: the page that ranks students filters on FINISHED.
_STATUS: Final[Mapping[str, str]] = {
    "running": RUNNING,
    _INTERRUPTED: KILLED,
    "completed": "FINISHED",
    "pruned": KILLED,
    "failed": "FAILED",
}


class Point(NamedTuple):
    """One value of one metric; MLflow stores equal points once."""

    key: str
    value: float
    time_ms: int
    step: int


class Upload(NamedTuple):
    """A file or folder that a run keeps a copy of, in `folder` of its artifacts."""

    path: str
    folder: str | None


class State(NamedTuple):
    """The status of a run, and when it ended (None while it runs)."""

    status: str
    time_ms: int | None


@dataclass(frozen=True)
class TrialStart:
    """What a student's run is created with."""

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    time_ms: int


@dataclass
class RunChange:
    """What a stretch of the ledger adds to one run; trial None is the parent."""

    trial: str | None
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    uploads: list[Upload] = field(default_factory=list)
    state: State | None = None


@dataclass
class _Trial:
    start: TrialStart
    last_ms: int
    outcome: str = "running"
    epoch: int = 0
    precision: str | None = None


class Projection:
    """Folds ledger events, in order, into changes of runs.

    It sees every event from number 0 on, so that what it derives (names, the last epoch of a trial) does
    not depend on where an earlier process stopped. An epoch that a resumed trial or stage reports again is
    left out: a curve holds each epoch once.
    """

    def __init__(self) -> None:
        self._trials: dict[str, _Trial] = {}
        self._stage_epochs: dict[tuple[str, str], int] = {}
        self._changes: dict[str | None, RunChange] = {}
        self.searched: set[str] = set()
        """Names of the parameters that any trial of a search has."""

    def fold(self, events: Iterable[Event]) -> list[RunChange]:
        """The changes that these events ask for, one for each run, in the order of their first event."""
        self._changes = {}
        for event in events:
            self._fold(event)
        return list(self._changes.values())

    def start_of(self, trial: str) -> TrialStart:
        """What the run of this trial is created with."""
        return self._trials[trial].start

    def states(self) -> dict[str, State]:
        """For each trial the state that its run should be in."""
        return {name: _state(trial) for name, trial in self._trials.items()}

    def interrupt(self, time_ms: int | None = None) -> list[RunChange]:
        """The changes that end every running trial, now or (without a time) at its last event.

        A later event of such a trial sets its run to RUNNING again.
        """
        changes = []
        for name, trial in self._trials.items():
            if trial.outcome == "running":
                trial.outcome = _INTERRUPTED
                trial.last_ms = time_ms or trial.last_ms
                changes.append(RunChange(name, tags={"outcome": _INTERRUPTED}, state=_state(trial)))
        return changes

    def _fold(self, event: Event) -> None:
        """What an agreement, an identity or a kind of a newer version says is not shown in MLflow."""
        match event:
            case TrialStarted():
                self._started(event)
            case EpochEnded():
                self._epoch(event)
            case TrialEnded():
                self._ended(event)
            case FiguresAdded():
                self._figures(event)
            case ArtifactAdded():
                self._artifact(event)
            case StageEvent():
                self._stage(event)
            case StageEpoch():
                self._stage_epoch(event)
            case TeacherPrepared():
                self._prepared(event)

    def _change(self, trial: str | None) -> RunChange:
        return self._changes.setdefault(trial, RunChange(trial))

    def _started(self, event: TrialStarted) -> None:
        name = event.trial
        if name not in self._trials:
            start = _trial_start(event, len(self._trials) + 1)
            self._trials[name] = _Trial(start, event.time_ms)
            if event.role is Role.SEARCH:
                self.searched |= start.params.keys()
        start = self._trials[name].start
        change = self._change(name)
        change.params |= start.params
        change.tags |= start.tags
        self._set_outcome(event, "running")

    def _set_outcome(self, event: TrialStarted | EpochEnded | TrialEnded, outcome: str) -> None:
        trial = self._trials[event.trial]
        trial.outcome = outcome
        trial.last_ms = event.time_ms
        change = self._change(event.trial)
        change.tags["outcome"] = outcome
        change.state = _state(trial)

    def _epoch(self, event: EpochEnded) -> None:
        trial = self._trials[event.trial]
        trial.last_ms = event.time_ms
        if trial.outcome == _INTERRUPTED:
            self._set_outcome(event, "running")
        if event.epoch > trial.epoch:
            trial.epoch = event.epoch
            self._change(event.trial).points += _points(event.metrics, event.time_ms, event.epoch)
        if event.precision not in (None, trial.precision):
            trial.precision = event.precision
            self._change(event.trial).tags["precision"] = str(event.precision)

    def _ended(self, event: TrialEnded) -> None:
        self._set_outcome(event, event.status)
        change = self._change(event.trial)
        if event.reason:
            change.tags["reason"] = event.reason[:TAG_CHARACTERS]
        figures = summary_figures(event.best, event.final, epochs=event.epochs, best_epoch=event.best_epoch)
        change.points += _points(figures, event.time_ms, 0)

    def _figures(self, event: FiguresAdded) -> None:
        if self._known(event):
            figures = {name: rounded(value) for name, value in event.figures.items()}
            change = self._change(event.trial)
            change.points += _points(figures, event.time_ms, 0)
            if event.latency_device is not None:
                change.tags["latency_device"] = event.latency_device[:TAG_CHARACTERS]
            if event.control is not None:
                change.tags["control"] = event.control
            if event.same_compute_control is not None:
                change.tags["same_compute_control"] = event.same_compute_control
            if event.champion is not None:
                name = self._trials[event.trial].start.name if event.trial is not None else ""
                change.tags["champion"] = "champion" if event.champion else ""
                change.tags["mlflow.runName"] = f"{CHAMPION_MARK} {name}" if event.champion else name

    def _artifact(self, event: ArtifactAdded) -> None:
        if self._known(event):
            self._change(event.trial).uploads.append(Upload(event.path, event.folder))

    def _known(self, event: FiguresAdded | ArtifactAdded) -> bool:
        if event.trial is None or event.trial in self._trials:
            return True
        _log.warning("the ledger has %s of %r, a trial that never started", event.kind, event.trial)
        return False

    def _stage(self, event: StageEvent) -> None:
        change = self._change(None)
        change.tags["stage"] = f"{event.stage} {event.status}"
        if event.status == "finished" and event.seconds is not None:
            seconds = {f"seconds/{event.stage}": rounded(event.seconds)}
            change.points += _points(seconds, event.time_ms, 0)

    def _stage_epoch(self, event: StageEpoch) -> None:
        told = event.stage, event.key
        if event.epoch > self._stage_epochs.get(told, 0):
            self._stage_epochs[told] = event.epoch
            metrics = {f"{event.stage}/{name}": value for name, value in event.metrics.items()}
            self._change(None).points += _points(metrics, event.time_ms, event.epoch)

    def _prepared(self, event: TeacherPrepared) -> None:
        """Tags, since parameters never change, and another recipe may follow in the same folder."""
        name = f"teacher.{event.part}"  # as in the registry
        recipe = param_text(event.recipe)[:TAG_CHARACTERS]
        self._change(None).tags |= {name: event.sha256, f"{name}.recipe": recipe}


def _state(trial: _Trial) -> State:
    return State(_STATUS[trial.outcome], None if trial.outcome == "running" else trial.last_ms)


def _trial_start(event: TrialStarted, ordinal: int) -> TrialStart:
    role = event.role
    values: dict[str, Any] = dict(event.parameters)
    if role is not Role.SEARCH:
        values["seed"] = event.spec["seed"]
    return TrialStart(
        name=run_name(event.trial, role, event.objective, ordinal),
        tags={
            "kind": run_kind(role),
            "trial_id": event.trial,
            "objective": event.objective,
            "search": event.search,
        },
        params={mlflow_key(name): param_text(value) for name, value in values.items()},
        time_ms=event.time_ms,
    )


def _points(metrics: Mapping[str, Any], time_ms: int, step: int) -> list[Point]:
    # MLflow turns an infinity into 1.8e308, which ruins a chart's axis; the ledger keeps it as it was.
    return [
        Point(mlflow_key(name), float(value) if math.isfinite(value) else math.nan, time_ms, step)
        for name, value in metrics.items()
        if isinstance(value, int | float)
    ]
