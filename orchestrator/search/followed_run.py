"""How far a run is that another process holds, from the events of its ledger; drawn as that run draws it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderResult
from rich.text import Text

from orchestrator.records.events import EpochEnded, Event, StageEpoch, StageEvent, TrialEnded, TrialStarted
from orchestrator.search.board_words import SEARCH, Student, Words
from orchestrator.search.progress_table import SearchBoard
from orchestrator.terminal.formatting import duration, plain_percent
from trainables.config import Role
from trainables.config.metrics import ACCURACY, RankBy
from trainables.slots.messages import Message

FINALISTS: Final = Words("finalists and controls", "waiting")
"""These are told to the ledger all at once, before any of them has a slot."""
LAST_STAGE: Final = "summary"
"""Noted when a run has come to its end."""


@dataclass
class _Followed:
    """A student that the ledger names, as Tune's trials are followed."""

    trial_id: str
    status: str
    student: Student
    search: str
    role: Role


@dataclass
class _Stage:
    name: str
    began_s: float
    epoch: StageEpoch | None = None


class FollowedRun:
    """A view of a run, fed with its events; `now` gives seconds since 1970."""

    def __init__(self, *, trials: int, now: Callable[[], float] = time.time) -> None:
        """`trials` is the budget of the search."""
        self._budget = trials
        self._now = now
        self._told_s: float | None = None
        """When the event that is being folded was written."""
        self._seconds: dict[str, float] = {}
        self._stage: _Stage | None = None
        self._students: dict[str, _Followed] = {}
        self._ended: dict[str, str] = {}
        self._board: SearchBoard | None = None
        self._boards: dict[tuple[str, bool], SearchBoard] = {}
        self.is_finished = False
        """Whether the last event says that all is done."""
        self.stopped: str | None = None
        """Why the run ended before that; none where the last event says nothing of the kind."""
        self.last_event_s: float | None = None
        self.note = ""
        """What whoever watches knows of it beside its ledger."""

    def add(self, events: Iterable[Event]) -> None:
        """What the ledger was given since."""
        for event in events:
            self._told_s = self.last_event_s = event.time_ms / 1000
            if isinstance(event, StageEvent):
                self._stage_told(event)
            elif isinstance(event, StageEpoch) and self._stage is not None:
                self._stage.epoch = event
            elif isinstance(event, TrialStarted):
                self._started(event)
            elif isinstance(event, EpochEnded):
                self._epoch(event)
            elif isinstance(event, TrialEnded):
                self._trial_ended(event)
        self._told_s = None

    def line(self) -> str:
        """All of it in short."""
        return "; ".join(part for part in (self._done(), *self._current(), self.note) if part)

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        """The stages that are done, and the table of the one that runs."""
        if done := self._done():
            yield Text(done, style="dim", overflow="fold")
        if self._board is not None and self._stage is not None:
            yield self._board
        else:
            yield Text("; ".join(self._current()), overflow="fold")
        if self.note:
            yield Text(self.note, style="yellow", overflow="fold")

    def plain(self) -> dict[str, Any]:
        """The same for programs; times are seconds, accuracies fractions."""
        searched = [each for each in self._students.values() if each.role is Role.SEARCH]
        ends = Counter(self._ended.get(each.trial_id, "not ended") for each in searched)
        return {
            "stage": None if self._stage is None else self._stage.name,
            "finished": self.is_finished,
            "stopped": self.stopped,
            "seconds": dict(self._seconds),
            "budget": self._budget,
            "trials": dict(ends),
            "best": None if self._board is None else self._board.best,
            "last_event_s": self.last_event_s,
        }

    def clock(self) -> float:
        """The time of what is being told; the present where nothing is."""
        return self._now() if self._told_s is None else self._told_s

    def _stage_told(self, event: StageEvent) -> None:
        self.is_finished, self.stopped = False, None
        if event.status == "started":
            self._stage, self._board = _Stage(event.stage, self.clock()), None
            for followed in self._students.values():  # until they are heard of
                followed.status = "WAITING"
            return
        if event.status == "finished":
            self._seconds[event.stage] = event.seconds or 0.0
            self.is_finished = event.stage == LAST_STAGE
        else:
            why = f": {event.reason}" if event.reason else ""
            self.stopped = f"stage {event.stage} {event.status}{why}"
        self._stage = None

    def _started(self, event: TrialStarted) -> None:
        training = event.spec.get("training", {})
        rank_by = RankBy(event.spec.get("rank_by", RankBy.ACCURACY))
        student = Student(event.trial, event.objective, int(training.get("epochs", 0)), rank_by)
        is_searched = event.role is Role.SEARCH
        status = "RUNNING" if is_searched else "WAITING"
        is_new = event.trial not in self._students
        self._students[event.trial] = _Followed(event.trial, status, student, event.search, event.role)
        board = self._board_of(self._students[event.trial])
        board.follow(self._students[event.trial], student)
        if not is_searched and (
            is_new or self._ended.pop(event.trial, "") != ""
        ):  # after a failure: once more
            board.trials += 1

    def _board_of(self, followed: _Followed) -> SearchBoard:
        """The board of its search, or of the finalists and controls of that; it is the one that is shown."""
        is_searched = followed.role is Role.SEARCH
        key = (followed.search, is_searched)
        board = self._boards.get(key)
        if board is None:
            total, words = (self._budget, SEARCH) if is_searched else (0, FINALISTS)
            epochs = followed.student.epochs
            board = SearchBoard(trials=total, epochs=epochs, slots=0, clock=self.clock, words=words)
            self._boards[key] = board
        elif self._board is not board:
            board.resumed()
        self._board = board
        return board

    def _epoch(self, event: EpochEnded) -> None:
        followed = self._students.get(event.trial)
        if followed is None or event.trial in self._ended:
            return
        followed.status = "RUNNING"
        message = Message(epoch=event.epoch, metrics=event.metrics)
        self._board_of(followed).reported(event.trial, message)

    def _trial_ended(self, event: TrialEnded) -> None:
        followed = self._students.get(event.trial)
        if followed is not None and event.trial not in self._ended:
            self._ended[event.trial] = event.status
            self._board_of(followed).ended(event.trial, event.status)

    def _done(self) -> str:
        shown = [f"{name} {duration(s)}" for name, s in self._seconds.items() if name != LAST_STAGE]
        return ", ".join(shown)

    def _current(self) -> list[str]:
        if self.is_finished:
            return ["the run is over"]
        if self.stopped is not None:
            return [self.stopped]
        if self._stage is None:
            return ["between two stages"]
        if self._board is not None:
            return [self._board.line()]
        return [self._stage_line(self._stage)]

    def _stage_line(self, stage: _Stage) -> str:
        text = f"{stage.name}: since {duration(self.clock() - stage.began_s)}"
        if stage.epoch is None:
            return text
        accuracy = stage.epoch.metrics.get(ACCURACY)
        reached = "" if accuracy is None else f", selection accuracy {plain_percent(accuracy)}"
        return f"{text}, epoch {stage.epoch.epoch}{reached}"
