"""What each ledger event means for MLflow: a pure fold of events into changes of runs."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.records.events import (
    ArtifactAdded,
    EpochEnded,
    Event,
    FiguresAdded,
    GroupAdded,
    StageEpoch,
    StageEvent,
    TeacherPrepared,
    TrialEnded,
    TrialStarted,
)
from orchestrator.tracking.changes import RUNNING, DataSet, Point, RunChange, State, TrialStart, Upload
from orchestrator.tracking.data_sets import TRAINING, data_sets, teacher_figures
from orchestrator.tracking.names import (
    TAG_CHARACTERS,
    mlflow_key,
    param_text,
    rounded,
    summary_figures,
)
from orchestrator.tracking.starts import champion_tags, group_start, trial_start
from trainables.config import Role

_log = logging.getLogger(__name__)

KILLED: Final = "KILLED"
_INTERRUPTED: Final = "interrupted"
# A pruned student is KILLED: the page that ranks students filters on FINISHED.
_STATUS: Final[Mapping[str, str]] = {
    "running": RUNNING,
    _INTERRUPTED: KILLED,
    "completed": "FINISHED",
    "pruned": KILLED,
    "failed": "FAILED",
}


@dataclass
class _Trial:
    start: TrialStart
    last_ms: int
    outcome: str = "running"
    epoch: int = 0
    precision: str | None = None
    has_model: bool = False


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
        self._n_students = 0
        self._group_of: dict[str, str] = {}
        self.data: DataSet | None = None
        """What students learn from and are judged on; none before it is known."""
        self.is_ranked = False
        """Whether any student has a rank, as all have when their search is over."""
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
            case GroupAdded():
                self._group(event)
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
            self._n_students += 1
            start = trial_start(event, self._n_students)
            self._trials[name] = _Trial(start, event.time_ms)
            if event.role is Role.SEARCH:
                self.searched |= start.params.keys()
        start = self._trials[name].start
        change = self._change(name)
        change.params |= start.params
        change.tags |= start.tags
        change.group = self._group_of.get(name)
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
        change.figures += _points(figures, event.time_ms, 0)
        trial = self._trials[event.trial]
        trial.has_model = event.status == "completed"
        change.has_model = trial.has_model

    def _figures(self, event: FiguresAdded) -> None:
        if self._known(event):
            change = self._change(event.trial)
            found = _points(_rounded(event.figures), event.time_ms, 0)
            if event.trial is None:
                change.points += found
            else:
                change.figures += found
                change.has_model = self._trials[event.trial].has_model
            self.is_ranked |= "rank" in event.figures
            if event.latency_device is not None:
                change.tags["latency_device"] = event.latency_device[:TAG_CHARACTERS]
            if event.control is not None:
                change.tags["control"] = event.control
            if event.same_compute_control is not None:
                change.tags["same_compute_control"] = event.same_compute_control
            if event.champion is not None:
                name = self._trials[event.trial].start.name if event.trial is not None else ""
                change.tags |= champion_tags(name, event.champion)

    def _group(self, event: GroupAdded) -> None:
        """A run above those of its seeds; a group that is told again, as another one won, changes its run."""
        start = group_start(event)
        self._trials[event.group] = group = _Trial(start, event.time_ms, "completed")
        change = self._change(event.group)
        change.params |= start.params
        change.tags |= dict(start.tags) | champion_tags(event.group, event.champion)
        change.points += _points(_rounded(event.figures), event.time_ms, 0)
        change.state = _state(group)
        for trial in event.trials:
            if trial in self._trials:
                self._group_of[trial] = self._change(trial).group = event.group

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
        if event.status != "finished":
            return
        if (inputs := data_sets(event)) is not None:
            change.inputs += inputs
            self.data = inputs[0] if inputs[0].context == TRAINING else self.data
        change.points += _points(teacher_figures(event), event.time_ms, 0)
        if event.seconds is not None:
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


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: rounded(value) for name, value in figures.items()}


def _points(metrics: Mapping[str, Any], time_ms: int, step: int) -> list[Point]:
    # MLflow turns an infinity into 1.8e308, which ruins a chart's axis; the ledger keeps it as it was.
    return [
        Point(mlflow_key(name), float(value) if math.isfinite(value) else math.nan, time_ms, step)
        for name, value in metrics.items()
        if isinstance(value, int | float)
    ]
