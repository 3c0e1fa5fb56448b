"""The ledger: an append-only file of events, the truth about an experiment; MLflow is its projection."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any, cast

from pydantic import Field

from orchestrator.records.chain import Broken, Chain, LedgerMark, mark_in
from orchestrator.records.events import (
    EpochEnded,
    Event,
    EventT,
    StageEvent,
    TrialEnded,
    TrialStarted,
    read_event,
)
from orchestrator.records.places import KeyPaths, former_places, read, written
from orchestrator.records.uninterrupted import uninterrupted
from orchestrator.terminal.masking import without_secrets
from trainables.config import Config, Role
from trainables.config.metrics import RankBy, improves, slot_seconds
from trainables.errors import StillhouseError
from trainables.foreign_files import foreign_file


class TrialRecord(Config):
    """What the ledger knows of one student, folded from its events.

    Accuracies are fractions in [0, 1]; `best` and `final` hold the metrics of the epoch that is the best by
    the figure that ranks (the one whose weights are kept) and of the last epoch.
    """

    trial: str
    role: Role
    search: str = Field(description="fingerprint of the search that it belongs to")
    objective: str
    parameters: dict[str, Any] = Field(
        description="searched values only, flat: temperature, student.width ..."
    )
    spec: dict[str, Any] = Field(description="the whole TrialSpec as plain data")
    sampled: dict[str, Any] = Field(
        {}, description="what the searcher proposed, to propose it again on resume"
    )
    repeats: str | None = Field(
        None, description="of a finalist the searched trial that it repeats, of the control its name"
    )
    control: str | None = Field(
        None, description="of a finalist in a ledger of an earlier version the name of its search's control"
    )
    status: str = Field("running", description="running, completed, pruned or failed")
    reason: str | None = None
    epochs: int = 0
    seconds: float = Field(0.0, description="of a slot, for its epochs together; 0 where not known")
    best_epoch: int | None = None
    best: dict[str, float] = {}
    final: dict[str, float] = {}
    checkpoint: str | None = Field(None, description="safetensors file with the weights of the best epoch")
    precision: str | None = Field(None, description="of its last epoch, and what chose that, where known")
    started_ms: int = 0
    ended_ms: int | None = None

    @property
    def rank_by(self) -> RankBy:
        """The figure that it is ranked by: accuracy, unless its specification says otherwise."""
        return RankBy(self.spec.get("rank_by", RankBy.ACCURACY))

    @property
    def score(self) -> float | None:
        """That figure on the selection split, at its best epoch; none before its first epoch."""
        return self.best.get(self.rank_by.metric)


class Ledger:
    """Append-only JSON lines in `<out>/ledger.jsonl`; one writer process.

    Every line is one event; `events.py` has a type for each of the eleven kinds, and `chain.py` the checksums
    by which lines that were changed, removed or moved are found. A line cut short by a crash is passed over
    when the file is opened again, and cut off before the next event: whoever only reads never alters the
    file, since a run may be writing it at that moment. Paths in the file are relative where they lie in its
    folder, and absolute in memory (`places.py`).
    """

    def __init__(self, folder: Path) -> None:
        """Open or create the ledger in a folder.

        Raises:
            StillhouseError: the folder cannot be written, a line of the file is no event or is not as it was
                written, or lines are missing at its end.
        """
        self.folder = folder.absolute()
        self.path = folder / "ledger.jsonl"
        self.former_place: str | None = None
        """Where the folder was when an earlier version last wrote an absolute path here; none if never."""
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self._trials: dict[str, TrialRecord] = {}
        self._chain = Chain()
        self._size = 0
        self._tail_is_cut = False
        self.trouble: StillhouseError | None = None
        """Why an event could not be written, when one could not."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Unbuffered: what a full disk refused must not be written by a later event.
            self._file = self.path.open("ab", buffering=0)
            self._load()
        except OSError as error:
            raise StillhouseError(f"cannot write the ledger {self.path}: {error}") from error

    def append(self, event: EventT) -> EventT:
        """Write one event and push it to disk before it counts; returned with its number and time.

        Ctrl-C takes effect behind it.

        Raises:
            StillhouseError: it cannot be written; the events before it are intact.
        """
        with uninterrupted(), self._lock:
            stamp = {"seq": len(self._events), "time_ms": time.time_ns() // 1_000_000}
            event = _masked(read(cast(EventT, event.model_copy(update=stamp)), self.folder, ()))
            plain = written(event, self.folder).plain()
            line = self._chain.sealed(json.dumps(plain, separators=(",", ":")).encode())
            try:
                if not self._events:
                    self._set_summary_aside()
                self._write(line)
            except OSError as error:
                self.trouble = StillhouseError(
                    f"cannot write the ledger {self.path}: {error}; what was there is intact; "
                    "free space and run again"
                )
                raise self.trouble from error
            self._chain.follow(line)
            self._fold(event)
            return event

    def events(self, since: int = 0) -> list[Event]:
        """The events from number `since` on."""
        with self._lock:
            return self._events[since:]

    def mark(self) -> LedgerMark:
        """How far the ledger is, for the summary."""
        with self._lock:
            return self._chain.mark()

    def check_at(self, events: int) -> str:
        """The checksum over so many events from the first on; empty for none, and where there are fewer."""
        with self._lock:
            return self._chain.check_at(events)

    def events_of(self, kind: type[EventT]) -> list[EventT]:
        """The events of one kind, in their order."""
        return [event for event in self.events() if isinstance(event, kind)]

    def trials(self, *, search: str | None = None, role: Role | None = None) -> list[TrialRecord]:
        """Trials in the order in which they started, of one search and role where given."""
        with self._lock:
            records = list(self._trials.values())
        return [r for r in records if search in (None, r.search) and role in (None, r.role)]

    def trial(self, trial: str) -> TrialRecord | None:
        """The record of one trial, if it ever started."""
        with self._lock:
            return self._trials.get(trial)

    def finished(self, stage: str, key: str) -> StageEvent | None:
        """The event that finished this stage for these inputs, with `seconds` and `result`."""
        for event in reversed(self.events_of(StageEvent)):
            if (event.stage, event.key, event.status) == (stage, key, "finished"):
                return event
        return None

    def key_paths(self, project: Path) -> KeyPaths:
        """How fingerprints in this ledger hold paths; `project` is the folder of the experiment's file."""
        return KeyPaths(self.folder, self.former_place, project)

    def close(self) -> None:
        """Close the file; the ledger can still be read."""
        self._file.close()

    def _write(self, line: bytes) -> None:
        if not self._tail_is_cut:
            self._cut_tail()
        try:
            left = memoryview(line)
            while left:  # an almost full disk takes a part, and refuses the rest with its reason
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self._size)
            raise
        self._size += len(line)

    def _set_summary_aside(self) -> None:
        """What a ledger that was moved away left: its mark is not of the one that begins here."""
        summary = self.folder / "summary.json"
        if mark_in(summary) is not None:
            summary.replace(self.folder / "summary.json.before")

    def _cut_tail(self) -> None:
        with self.path.open("rb") as file:
            file.seek(self._size)
            if b"\n" in file.read():
                raise OSError("another process has written to it since it was opened")
        self._file.truncate(self._size)
        self._tail_is_cut = True

    def _load(self) -> None:
        found: list[Event] = []
        number = 0

        def no_event(why: str) -> StillhouseError:
            return self._refused(f":{number}", f"not a ledger event ({why})")

        # Read first: whoever writes both writes it later, so a run in progress is never behind it.
        mark = mark_in(self.folder / "summary.json")
        with self.path.open("rb") as file:
            lines = list(file)
        with foreign_file(no_event):
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    self._require_torn(number, line)
                    break
                found.append(read_event(json.loads(self._followed(number, line))))
                self._size += len(line)
            former = former_places(found)
            self.former_place = next(iter(former), None)
            for number, event in enumerate(found, start=1):  # noqa: B007 (told above)
                self._fold(_masked(read(event, self.folder, former)))
        if found and mark is not None:  # without a line it is a new ledger: the old one was moved away
            self._require(mark)

    def _require(self, mark: LedgerMark) -> None:
        try:
            self._chain.require(mark)
        except Broken as error:
            raise StillhouseError(
                f"{self.path}: {error}; restore the file, or move summary.json away to go on with what "
                "is left"
            ) from error

    def _followed(self, number: int, line: bytes) -> bytes:
        try:
            return self._chain.follow(line)
        except Broken as error:
            raise self._refused(f":{number}", str(error)) from error

    def _require_torn(self, number: int, tail: bytes) -> None:
        """What follows the last line feed is what a crash left of a line."""
        if self._chain.is_next_but_for_its_end(tail):
            raise self._refused(f":{number}", "its end was changed after it was written")

    def _refused(self, place: str, why: str) -> StillhouseError:
        return StillhouseError(f"{self.path}{place}: {why}; restore the file or move it away")

    def _fold(self, event: Event) -> None:
        self._events.append(event)
        if isinstance(event, TrialStarted):
            self._start(event)
        elif isinstance(event, EpochEnded):
            self._epoch(event)
        elif isinstance(event, TrialEnded):
            self._end(event)

    def _start(self, event: TrialStarted) -> None:
        names = ("trial", "role", "search", "objective", "parameters", "spec", "sampled")
        fields = {name: getattr(event, name) for name in (*names, "repeats", "control")}
        self._trials[event.trial] = TrialRecord.from_plain({**fields, "started_ms": event.time_ms})

    def _epoch(self, event: EpochEnded) -> None:
        record = self._trials[event.trial]
        update: dict[str, Any] = {"epochs": max(record.epochs, event.epoch), "final": event.metrics}
        if event.epoch > record.epochs:
            update["seconds"] = record.seconds + slot_seconds(event.metrics)
        if event.precision is not None:
            update["precision"] = event.precision
        if improves(event.metrics.get(record.rank_by.metric), record.score):
            update |= {"best": event.metrics, "best_epoch": event.epoch}
        self._trials[event.trial] = record.model_copy(update=update)

    def _end(self, event: TrialEnded) -> None:
        names = ("status", "reason", "epochs", "best_epoch", "best", "final", "checkpoint")
        update = {name: getattr(event, name) for name in names} | {"ended_ms": event.time_ms}
        self._trials[event.trial] = self._trials[event.trial].model_copy(update=update)


def _masked(event: EventT) -> EventT:
    """The event with a reason that holds no secrets; what work is done again from stays as it is."""
    if not isinstance(event, StageEvent | TrialEnded) or event.reason is None:
        return event
    return cast(EventT, event.model_copy(update={"reason": without_secrets(event.reason)}))
