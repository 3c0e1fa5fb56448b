"""MLflow's record of a ledger, written from its first event on: also of a run that is not finished."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any, Final

from orchestrator.config.loading import LoadedExperiment
from orchestrator.config.paths import experiment_name, folder_of_run, tracking_uri
from orchestrator.records.events import LAST_STAGE, StageEvent
from orchestrator.records.following.run_lock import locked
from orchestrator.records.ledger import Ledger
from orchestrator.terminal.console import Console
from orchestrator.tracking.cursor import CursorFile
from orchestrator.tracking.experiment_facts import experiment_facts
from orchestrator.tracking.moved_store import tell_of_move
from orchestrator.tracking.recorder import FinalStatus, MlflowRecorder
from trainables.errors import StillhouseError

_LOOK_S: Final = 2.0
_PATIENCE_S: Final = 120.0
"""Without an event more in MLflow; a server that restarts is back by then."""
_CLOSE_S: Final = {"complete": 60.0, "interrupted": 5.0}


def recorder_of(loaded: LoadedExperiment, ledger: Ledger, out: Path) -> MlflowRecorder:
    """The recorder of a run's ledger; nothing is opened before it is started."""
    return MlflowRecorder(
        ledger,
        tracking_uri=tracking_uri(loaded),
        experiment_name=experiment_name(loaded),
        out=out,
        parent=experiment_facts(loaded),
    )


def record_ledger(loaded: LoadedExperiment, console: Console) -> dict[str, Any]:
    """Write all that the ledger of an experiment holds to MLflow, whatever is there; nothing is trained.

    The parent ends as the run did: finished, failed, or else killed. What the ledger does not hold, as the
    registered model, is what `stillhouse run` adds when it finishes the run.

    Raises:
        ConfigError: its folder holds no run.
        StillhouseError: another run is writing there; or MLflow did not take everything.
    """
    out = folder_of_run(loaded)
    with locked(out), closing(Ledger(out)) as ledger:
        tell_of_move(loaded, console.info)
        CursorFile(out, tracking_uri(loaded), experiment_name(loaded)).forget()
        recorder = recorder_of(loaded, ledger, out)
        recorder.start()
        status = _end_of(ledger)
        try:
            _follow(recorder, len(ledger.events()), console)
        except KeyboardInterrupt:
            recorder.close(status, timeout_s=_CLOSE_S["interrupted"])
            raise
        left = recorder.close(status, timeout_s=_CLOSE_S["complete"])
        if left:
            raise StillhouseError(f"{left}; the same command writes them again")
        return {
            "out": str(out),
            "events": len(ledger.events()),
            "experiment_id": recorder.experiment_id,
            "parent_run_id": recorder.parent_run_id,
            "status": status,
            "refused": left.refused,
        }


def _follow(recorder: MlflowRecorder, events: int, console: Console) -> None:
    """Show how far MLflow is until it has everything, or took nothing for a while."""
    with console.progress("events of the ledger in MLflow", total=events) as progress:
        seen, quiet_since = recorder.flush(_LOOK_S), console.clock()
        while seen and not recorder.is_stuck and console.clock() - quiet_since < _PATIENCE_S:
            now = recorder.flush(_LOOK_S)
            if now.events != seen.events:
                quiet_since = console.clock()
            seen = now
            progress.update(events - min(events, now.events), now.error or "")


def _end_of(ledger: Ledger) -> FinalStatus:
    """How the run ended, as its last stage says."""
    stages = ledger.events_of(StageEvent)
    if not stages:
        return "KILLED"
    last = stages[-1]
    if (last.stage, last.status) == (LAST_STAGE, "finished"):
        return "FINISHED"
    return "FAILED" if last.status == "failed" else "KILLED"
