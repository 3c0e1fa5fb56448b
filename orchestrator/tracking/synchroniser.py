"""Writes what ledger events ask for to MLflow, once each, however often it is interrupted."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from orchestrator.config.paths import artifact_folder
from orchestrator.records.ledger import Ledger
from orchestrator.tracking.changes import RUNNING, RunChange, State
from orchestrator.tracking.cursor import CursorFile, TrackingCursor
from orchestrator.tracking.faults.errors import WriteRefused
from orchestrator.tracking.faults.late_files import LateFiles
from orchestrator.tracking.lost_points import first_to_write, with_lost_points
from orchestrator.tracking.names import mlflow_key
from orchestrator.tracking.parent import ParentFacts
from orchestrator.tracking.projection import Projection
from orchestrator.tracking.store import KnownRun, RunStore
from orchestrator.tracking.views import shared_views
from orchestrator.tracking.writer import PARENT_KIND, RunWriter

_log = logging.getLogger(__name__)
_EVENTS_PER_ROUND: Final = 2000


class Projector:
    """Where the runs of one ledger stand in MLflow; after `begin` one thread owns it.

    Every write can be repeated: runs are found again by the tags `ledger`, `kind` and `trial_id`, a point
    carries its event's time, and MLflow stores equal points once.
    """

    def __init__(
        self, ledger: Ledger, *, tracking_uri: str, experiment_name: str, out: Path, parent: ParentFacts
    ) -> None:
        self._ledger = ledger
        self._place = (tracking_uri, experiment_name, artifact_folder(tracking_uri, out))
        self._cursor_file = CursorFile(out, tracking_uri, experiment_name)
        self._facts = parent
        self._identity = ""
        self._boundary = 0
        self._opened: RunStore | None = None
        self._stale = True
        self._described = ""
        self._views: dict[str, str] = {}
        self._repaired = False
        self._settled = False
        self._projection = Projection()
        self._writer = RunWriter(lambda: self._store, lambda trial: self._projection.start_of(trial))
        self._pending: deque[RunChange] = deque()
        self._pending_end = 0
        self.cursor = 0
        self._whole = 0
        """Events whose files MLflow has too: another process goes on there."""
        self.written = 0
        """Changes that were written, however often MLflow was away in between."""
        self.began_anew = False
        """Whether the ledger was written from its first event on, as into a new store."""
        self.experiment_id = ""

    def begin(self, identity: str) -> None:
        """Note which ledger this is, and which events were there before any trial of this process."""
        self._identity = self._writer.identity = identity
        self._boundary = len(self._ledger.events())

    @property
    def parent_run_id(self) -> str:
        """The parent run's id; empty before it is known."""
        return self._writer.parent_run_id

    @property
    def refused(self) -> int:
        """Writes that MLflow will never take."""
        return self._writer.refused

    @property
    def late(self) -> LateFiles:
        """Files that wait for the artifact store."""
        return self._writer.late

    def run_id(self, trial: str) -> str | None:
        """The run of a trial, if MLflow is known to have it."""
        known = self._writer.runs.get(trial)
        return known.run_id if known is not None else None

    def has(self, events: int) -> bool:
        """Whether MLflow has so many events, and the runs that an earlier process left are set right."""
        return self.cursor >= events and self._settled

    def distrust(self) -> None:
        """Look the runs up again before the next write: a request that failed may have been carried out."""
        self._stale = True

    def advance(self, report: Callable[[], None]) -> None:
        """Bring MLflow up to date with the ledger; `report` is called whenever the cursor has moved.

        Raises:
            StoreAway: MLflow is away; calling again goes on where this stopped.
        """
        if self._stale:
            self._adopt()
            self._stale = False
        report()
        while self._read_ahead():
            self._drain()
            self._share_views()
            self.cursor = self._pending_end
            self._settled = self._repaired
            self._save()
            report()
        self.write_late_files()
        report()

    def write_late_files(self, *, at_once: bool = False) -> None:
        """Try those again whose time has come, or all of them."""
        waited = len(self.late)
        self.late.write(self._writer.attempt, at_once=at_once)
        if len(self.late) < waited:
            self._save()

    def finish(self, status: str, time_ms: int) -> None:
        """End the runs of trials that are still running as KILLED, and the parent as `status`."""
        self._pending.extend(self._projection.interrupt(time_ms))
        self._drain()
        self._store.set_state(self.parent_run_id, State(status, time_ms))

    @property
    def _store(self) -> RunStore:
        if self._opened is None:
            self._opened = RunStore(*self._place)
        return self._opened

    def _adopt(self) -> None:
        """Find this ledger's runs, or make them; go back to the first event that a lost run needs."""
        parent, doubles = self._writer.adopt(self._store.runs_of(self._identity), self._written_into())
        for run in doubles:
            self._writer.discard_double(run)
        if parent is None:
            parent = self._create_parent()
        elif self._resume_point(parent.run_id) == 0:
            parent = self._without_lost_points(parent)
        if parent.status != RUNNING:
            self._store.set_state(parent.run_id, State(RUNNING, None))
        new_parent = parent.run_id != self.parent_run_id
        cursor = self._resume_point(parent.run_id)
        if new_parent or cursor != self.cursor:
            self._go_to(cursor)
            self.began_anew |= cursor == 0
        self.experiment_id, self._writer.parent_run_id = self._store.experiment_id, parent.run_id
        if self._described != parent.run_id:
            self._describe_parent()
            self._described = parent.run_id

    def _written_into(self) -> set[str]:
        """The ids of runs that this process knows, and of those that an earlier one noted."""
        saved = self._cursor_file.load()
        earlier = () if saved is None else (saved.parent_run_id, *saved.runs.values())
        return {self.parent_run_id, *(run.run_id for run in self._writer.runs.values()), *earlier}

    def _without_lost_points(self, parent: KnownRun) -> KnownRun:
        """Set runs aside that hold what the ledger lacks, to be made anew; the parent from now on."""
        for trial in with_lost_points(self._ledger.events(), parent, self._writer.runs):
            run = parent if trial is None else self._writer.runs[trial]
            _log.warning("MLflow's run %s holds what the ledger lost: it is made anew", run.run_id)
            try:
                self._store.discard(run.run_id)
            except WriteRefused as error:
                self._writer.refuse(error)
                continue
            if trial is None:
                parent = self._create_parent()
            else:
                del self._writer.runs[trial]
        return parent

    def _create_parent(self) -> KnownRun:
        time_ms = time.time_ns() // 1_000_000
        tags = {"kind": PARENT_KIND, "ledger": self._identity}
        return KnownRun(self._store.create(self._facts.name, tags, time_ms), RUNNING)

    def _resume_point(self, parent_run_id: str) -> int:
        """The number of the first event that MLflow may lack."""
        cursor = self.cursor
        if self.parent_run_id != parent_run_id:
            saved = self._cursor_file.load()
            if saved is None or (saved.ledger, saved.parent_run_id) != (self._identity, parent_run_id):
                return 0
            if saved.check not in ("", self._ledger.check_at(saved.cursor)):
                return 0  # the ledger was cut, or an older copy of it put back
            cursor = saved.cursor
        events = self._ledger.events()
        if cursor > len(events):
            return 0
        return first_to_write(events[:cursor], self._writer.runs)

    def _go_to(self, cursor: int) -> None:
        """Fold the events before `cursor` without writing them."""
        events = self._ledger.events()
        self._projection = Projection()
        self._pending.clear()
        self._projection.fold(events[: min(cursor, self._boundary)])
        self._settled = self._repaired = cursor > self._boundary
        if self._repaired:
            self._projection.interrupt()
            self._projection.fold(events[self._boundary : cursor])
        self.cursor = self._whole = cursor

    def _describe_parent(self) -> None:
        run_id = self.parent_run_id
        params = self._facts.params()
        before = self._store.params(run_id)
        # MLflow never changes a parameter: what a resumed experiment changed is told by a tag.
        tags = {
            mlflow_key(f"changed/{name}"): value
            for name, value in params.items()
            if before.get(name, value) != value
        }
        tags |= {f"version.{mlflow_key(name)}": text for name, text in self._facts.versions.items()}
        tags |= self._facts.tags
        tags["mlflow.note.content"] = self._facts.description(self._store.experiment_id)
        new = {name: value for name, value in params.items() if name not in before}
        self._writer.attempt(lambda: self._store.describe(run_id, new, tags))
        self._share_views()
        self._writer.upload_json(self._facts.document(), "experiment.json")
        for name, text in self._facts.files.items():
            self._writer.upload_text(text, name)

    def _share_views(self) -> None:
        """Set the pages' columns and order: what trials are known to differ in, or else may differ in."""
        searched = self._projection.searched or self._facts.searched
        views = shared_views(searched, self._facts.rank_by, is_ranked=self._projection.is_ranked)
        for tag, view in views.items():
            if view != self._views.get(tag):
                self._writer.attempt(partial(self._store.tag_experiment, tag, view))
        self._views = views

    def _read_ahead(self) -> bool:
        """Fill the pending changes; whether there is anything to write or to pass over."""
        if self._pending:
            return True
        if self.cursor == self._boundary and not self._repaired:
            self._pending.extend(self._repairs())
            self._pending_end = self.cursor
            self._repaired = True
            return True
        stop = self.cursor + _EVENTS_PER_ROUND
        if self.cursor < self._boundary:
            stop = min(stop, self._boundary)
        events = self._ledger.events(self.cursor)[: stop - self.cursor]
        self._pending.extend(self._projection.fold(events))
        self._pending_end = self.cursor + len(events)
        return bool(events)

    def _repairs(self) -> list[RunChange]:
        """Changes for runs that an earlier process left in another state than the ledger says."""
        changes = self._projection.interrupt()
        repaired = {change.trial for change in changes}
        for trial, state in self._projection.states().items():
            known = self._writer.runs.get(trial)
            if trial not in repaired and known is not None and known.status != state.status:
                changes.append(RunChange(trial, state=state))
        return changes

    def _drain(self) -> None:
        while self._pending:
            self._writer.write(self._pending[0], self._projection.data)
            self._pending.popleft()
            self.written += 1

    def _save(self) -> None:
        if not self.late:
            self._whole = self.cursor
        self._cursor_file.save(
            TrackingCursor(
                ledger=self._identity,
                experiment_id=self.experiment_id,
                parent_run_id=self.parent_run_id,
                cursor=self._whole,
                check=self._ledger.check_at(self._whole),
                runs={trial: run.run_id for trial, run in self._writer.runs.items()},
            )
        )
