"""Writes changes into MLflow's runs: each write can be repeated, and what MLflow refuses stops no other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from typing import Any, Final

from orchestrator.tracking.changes import RUNNING, DataSet, RunChange, State, TrialStart, Upload
from orchestrator.tracking.faults.errors import StoreAway, WriteRefused
from orchestrator.tracking.faults.late_files import LateFiles
from orchestrator.tracking.store import KnownRun, RunStore

_log = logging.getLogger(__name__)
PARENT_KIND: Final = "experiment"
"""The tag `kind` of the parent."""


class RunWriter:
    """The runs of one ledger that are known to be in MLflow, and the writes into them.

    Every method raises StoreAway where MLflow is away, and nothing else of MLflow's.
    """

    def __init__(self, opened: Callable[[], RunStore], start_of: Callable[[str], TrialStart]) -> None:
        """`opened` gives the store; `start_of` what the run of a trial or group is created with."""
        self._opened = opened
        self._start_of = start_of
        self.identity = ""
        """Of the ledger, which marks its runs."""
        self.parent_run_id = ""
        self.runs: dict[str, KnownRun] = {}
        """By trial or group."""
        self._models: dict[str, str] = {}
        """By run the model that it is known to have."""
        self.refused = 0
        """Writes that MLflow will never take."""
        self.late = LateFiles()
        """Of these runs."""

    def adopt(
        self, found: Iterable[tuple[str, str | None, KnownRun]], written: Collection[str]
    ) -> tuple[KnownRun | None, list[KnownRun]]:
        """Know the runs that the store has of this ledger; the parent among them, and doubles.

        A request that nobody waits for any more may still be carried out: then a run is there twice. The one
        whose id is among those `written` into is kept, or else the first.
        """
        one_each: dict[str | None, KnownRun] = {}
        doubles: list[KnownRun] = []
        for kind, trial, run in found:
            is_parent = kind == PARENT_KIND
            if not is_parent and trial is None:
                continue
            key = None if is_parent else trial
            kept = one_each.get(key)
            if kept is None:
                one_each[key] = run
            elif run.run_id in written and kept.run_id not in written:
                one_each[key] = run
                doubles.append(kept)
            else:
                doubles.append(run)
        parent = one_each.pop(None, None)
        self.runs = {str(trial): run for trial, run in one_each.items()}
        return parent, doubles

    def discard_double(self, run: KnownRun) -> None:
        """Mark a run as deleted that a request made which arrived late."""
        _log.warning("MLflow made run %s when another was in its place already: it is deleted", run.run_id)
        self.attempt(lambda: self._opened().discard(run.run_id))

    def write(self, change: RunChange, data: DataSet | None) -> None:
        """Write all of a change into its run, which is created where it is not there.

        `data` is what the figures of students are of.
        """
        run_id = self.parent_run_id if change.trial is None else self._child(change.trial)
        tags = dict(change.tags)
        if change.group is not None:
            tags["mlflow.parentRunId"] = self._child(change.group)
        elif "trial_id" in tags:  # a student starts
            tags["mlflow.parentRunId"] = self.parent_run_id
        store = self._opened()
        self.attempt(lambda: store.describe(run_id, change.params, {}))
        self.attempt(lambda: store.describe(run_id, {}, tags))
        self.attempt(lambda: store.measure(run_id, change.points))
        if change.inputs:
            self.attempt(lambda: store.add_inputs(run_id, change.inputs))
        if change.figures and change.trial is not None:
            self._measure_student(change, data)
        for upload in change.uploads:
            self._upload(run_id, upload)
        if change.state is not None and change.trial is not None:
            self._set_state(change.trial, change.state)

    def attempt(self, write: Callable[[], None]) -> None:
        """Write; a refusal is counted, and told in the log."""
        try:
            write()
        except WriteRefused as error:
            self.refuse(error)

    def attempt_upload(self, run_id: str, file: Hashable, write: Callable[[], None]) -> None:
        """Write a file; where only the artifact store fails, it is kept for later and figures go on.

        `file` says which of the run's files it is.
        """
        try:
            self.attempt(write)
        except StoreAway as error:
            self._opened().params(run_id)  # raises StoreAway when MLflow itself is away
            if not self.late:
                _log.warning("MLflow does not take a file now, it is tried again: %s", error)
            self.late.add((run_id, file), write, error)

    def upload_json(self, document: Mapping[str, Any], name: str) -> None:
        """Keep plain data as a file of the parent run."""
        run_id = self.parent_run_id
        self.attempt_upload(run_id, name, lambda: self._opened().upload_json(run_id, document, name))

    def upload_text(self, text: str, name: str) -> None:
        """Keep a text as a file of the parent run."""
        run_id = self.parent_run_id
        self.attempt_upload(run_id, name, lambda: self._opened().upload_text(run_id, text, name))

    def refuse(self, error: Exception) -> None:
        """Count what MLflow will never take."""
        self.refused += 1
        _log.warning("MLflow refused a part of the record, the ledger keeps it: %s", error)

    def _child(self, trial: str) -> str:
        known = self.runs.get(trial)
        if known is None:
            start = self._start_of(trial)
            tags = {**start.tags, "ledger": self.identity, "mlflow.parentRunId": self.parent_run_id}
            known = KnownRun(self._opened().create(start.name, tags, start.time_ms), RUNNING)
            self.runs[trial] = known
        return known.run_id

    def _measure_student(self, change: RunChange, data: DataSet | None) -> None:
        """Figures of a student as a whole: of a finished one they are those of its model, too."""
        trial = str(change.trial)
        run_id = self.runs[trial].run_id
        if change.has_model and run_id not in self._models:
            start = self._start_of(trial)
            try:
                self._models[run_id] = self._opened().model_of(run_id, start.name, start.params, start.tags)
            except WriteRefused as error:
                self.refuse(error)
        model = self._models.get(run_id) if change.has_model else None
        self.attempt(lambda: self._opened().measure(run_id, change.figures, model=model, data=data))

    def _set_state(self, trial: str, state: State) -> None:
        known = self.runs[trial]
        if known.status != state.status or state.status != RUNNING:
            self.attempt(lambda: self._opened().set_state(known.run_id, state))
            self.runs[trial] = KnownRun(known.run_id, state.status)

    def _upload(self, run_id: str, upload: Upload) -> None:
        self.attempt_upload(run_id, upload, lambda: self._opened().upload(run_id, upload))
