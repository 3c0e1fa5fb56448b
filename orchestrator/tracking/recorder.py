"""The recorder: one background thread that brings MLflow up to date with the ledger.

The ledger is the truth. Whatever happens to MLflow, training goes on; what MLflow has not got yet is
written when it is back, by this process or by the next one.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from orchestrator.records.events import ArtifactAdded, FiguresAdded, LedgerIdentity
from orchestrator.records.ledger import Ledger
from orchestrator.tracking.faults.errors import AccessDenied, StoreAway, WriteRefused
from orchestrator.tracking.faults.outstanding import Outstanding
from orchestrator.tracking.faults.waits import doubled_wait_s
from orchestrator.tracking.parent import ParentFacts
from orchestrator.tracking.store import prepare_mlflow
from orchestrator.tracking.synchroniser import Projector
from trainables.errors import StillhouseError

_log = logging.getLogger(__name__)
_POLL_S: Final = 1.0
_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 15.0
_DENIED_S: Final = 5.0
_LAST_WAITS_S: Final = (0.0, 1.0, 2.0)
"""Before each last attempt at files that wait, when all else is written."""

FinalStatus = Literal["FINISHED", "FAILED", "KILLED"]


class MlflowRecorder:
    """Projects a ledger onto MLflow runs: a parent for the experiment, a child for each student.

    Start it before the first trial of this process: a trial that the ledger has as running at that moment
    is nobody's, and its run is KILLED until the trial goes on. One recorder per ledger.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        tracking_uri: str,
        experiment_name: str,
        out: Path,
        parent: ParentFacts,
    ) -> None:
        """Prepare a recorder; nothing is opened before `start`.

        `tracking_uri` is absolute, as `config.paths.tracking_uri` gives it.
        """
        self._ledger = ledger
        self._projector = Projector(
            ledger, tracking_uri=tracking_uri, experiment_name=experiment_name, out=out, parent=parent
        )
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._error: str | None = None
        self._ready = False
        self._is_denied = False
        self._closing: FinalStatus | None = None
        self._attempts = 0
        self._waits = 0
        self._written = 0
        self._was_away = False
        self._abandoned = False

    def start(self) -> None:
        """Start the thread; returns at once, while the store is opened or waited for.

        Side effects: MLflow's environment variables (`prepare_mlflow`); an `identity` event in a new ledger.
        """
        if self._thread is not None:
            raise StillhouseError("this recorder was started before; make a new one")
        prepare_mlflow()
        self._projector.begin(_identity(self._ledger))
        self._thread = threading.Thread(target=self._run, name="mlflow-recorder", daemon=True)
        self._thread.start()

    @property
    def is_started(self) -> bool:
        """Whether it was started, so that it has to be closed."""
        return self._thread is not None

    @property
    def is_stuck(self) -> bool:
        """Whether waiting does not help: the server does not let us in, or the thread has ended."""
        return self._is_denied or not self._alive

    @property
    def began_anew(self) -> bool:
        """Whether this process wrote the ledger from its first event on, as into a new store."""
        return self._projector.began_anew

    @property
    def experiment_id(self) -> str:
        """The experiment's id.

        Raises:
            StillhouseError: the recorder is not ready.
        """
        return self._when_ready(self._projector.experiment_id)

    @property
    def parent_run_id(self) -> str:
        """The parent run's id.

        Raises:
            StillhouseError: the recorder is not ready.
        """
        return self._when_ready(self._projector.parent_run_id)

    def run_id(self, trial: str) -> str | None:
        """The run of a trial, once MLflow has it; `flush` first to be sure."""
        return self._projector.run_id(trial)

    def record_figures(
        self,
        trial: str | None,
        figures: Mapping[str, float],
        *,
        latency_device: str | None = None,
        controls: tuple[str | None, str | None] = (None, None),
        champion: bool | None = None,
    ) -> None:
        """Add figures to a student's run (params, size_bytes, latency_ms ...), through the ledger.

        The device that latencies were measured on becomes the tag `latency_device`. `controls` are the
        students that `gain_over_control` and `gain_same_compute` are over: they become the tags `control` and
        `same_compute_control`. The one whose weights are to be shipped has the tag `champion`. With trial
        None the figures go to the parent, under names that no student's figures have, since people sort the
        students by those.

        Raises:
            StillhouseError: the ledger has no such trial.
        """
        self._check_known(trial)
        control, longer = controls
        named = {"latency_device": latency_device, "control": control, "champion": champion}
        named["same_compute_control"] = longer
        known: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
        self._ledger.append(FiguresAdded(trial=trial, figures=dict(figures), **known))

    def record_artifact(self, path: Path, *, trial: str | None = None, folder: str | None = None) -> None:
        """Have a file or a folder copied to the parent's artifacts, or to a student's, through the ledger.

        Raises:
            StillhouseError: there is no such file, or no such trial.
        """
        self._check_known(trial)
        if not path.exists():
            raise StillhouseError(f"{path} does not exist, so it cannot be kept in MLflow; write it first")
        self._ledger.append(ArtifactAdded(trial=trial, path=str(path.absolute()), folder=folder))

    def flush(self, timeout_s: float) -> Outstanding:
        """What MLflow lacks of the events up to now, after waiting at most so long for it to catch up.

        There is no waiting for a server that does not let us in.
        """
        target = len(self._ledger.events())
        self._wake.set()
        with self._changed:
            self._changed.wait_for(lambda: self._is_written(target) or self.is_stuck, timeout_s)
        return self._outstanding(target)

    def close(self, status: FinalStatus, timeout_s: float = 60.0) -> Outstanding:
        """Write what is left, end the runs of trials still running as KILLED and the parent as `status`.

        What MLflow has not taken in time stays for the next recorder of this ledger.
        """
        if self._thread is None:
            raise StillhouseError("this recorder was never started")
        self._closing = status
        self._wake.set()
        self._thread.join(min(timeout_s, _DENIED_S) if self._is_denied else timeout_s)
        self._abandoned = True
        left = self._outstanding(len(self._ledger.events()))
        if left:
            _log.warning("%s", left)
        elif self._alive:
            _log.warning("MLflow did not answer in time; the next run sets the status of the runs right")
        return left

    @property
    def _alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _when_ready(self, value: str) -> str:
        if not self._ready:
            raise StillhouseError(
                f"MLflow is not ready{f': {self._error}' if self._error else ''}; call flush first"
            )
        return value

    def _check_known(self, trial: str | None) -> None:
        if trial is not None and self._ledger.trial(trial) is None:
            raise StillhouseError(
                f"the ledger has no trial {trial!r}; figures belong to a trial that started"
            )

    def _is_written(self, target: int) -> bool:
        return self._projector.has(target) and not self._projector.late.may_come_soon

    def _outstanding(self, target: int) -> Outstanding:
        done, late = self._projector.has(target), self._projector.late
        waiting = max(0, target - self._projector.cursor)
        error = late.error if done else self._error
        return Outstanding(
            waiting, self._projector.refused, error, settled=done or waiting > 0, files=len(late)
        )

    def _run(self) -> None:
        try:
            while not self._step():
                pass
        finally:
            with self._changed:
                self._changed.notify_all()

    def _step(self) -> bool:
        """One round; whether the recorder is done."""
        self._wake.clear()
        closing = self._closing
        try:
            if closing is not None and self._was_away:
                # A request of that time may have made a run beside the one that was made instead.
                self._projector.distrust()
                self._was_away = False
            self._projector.advance(self._report)
            if closing is not None:
                self._projector.finish(closing, time.time_ns() // 1_000_000)
                self._write_last_files()
                return True
        except (StoreAway, WriteRefused) as error:
            self._wait_for_store(error)
            return self._abandoned
        if self._attempts:
            _log.info("MLflow is back")
        self._attempts, self._waits, self._error, self._is_denied = 0, 0, None, False
        self._wake.wait(_POLL_S)
        return False

    def _write_last_files(self) -> None:
        for wait_s in _LAST_WAITS_S:
            if not self._projector.late or self._abandoned:
                return
            time.sleep(wait_s)
            self._projector.write_late_files(at_once=True)

    def _report(self) -> None:
        with self._changed:
            self._ready = True
            self._changed.notify_all()

    def _wait_for_store(self, error: StillhouseError) -> None:
        self._error = str(error)
        with self._changed:
            self._is_denied = isinstance(error, AccessDenied)
            self._changed.notify_all()
        if self._projector.written > self._written:
            self._waits = 0  # it took something in between: one that fails now and then is not away
        self._written = self._projector.written
        wait_s = doubled_wait_s(self._waits, first_s=_FIRST_WAIT_S, longest_s=_LONGEST_WAIT_S)
        if self._attempts == 0:
            _log.warning("MLflow does not take the record now, training goes on: %s", error)
        self._attempts += 1
        self._waits += 1
        self._was_away = True
        self._projector.distrust()
        self._wake.wait(wait_s)


def _identity(ledger: Ledger) -> str:
    """The ledger's own id, which marks its runs in MLflow; a new ledger is given one."""
    known = ledger.events_of(LedgerIdentity)
    identity = known[0] if known else ledger.append(LedgerIdentity(ledger=uuid.uuid4().hex))
    return identity.ledger
