"""`stillhouse watch` ends with the run, and leaves quietly before."""

from __future__ import annotations

import io
import time
from pathlib import Path

import filelock
import pytest

from orchestrator.commands.reading import watch
from orchestrator.records.events import StageEvent
from orchestrator.records.following.ledger_reader import LedgerReader
from orchestrator.records.following.run_lock import LOCK
from orchestrator.records.ledger import Ledger
from orchestrator.search.followed_run import FollowedRun
from orchestrator.terminal.console import Console


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Of a run that is in its search."""
    ledger = Ledger(tmp_path)
    ledger.append(StageEvent(stage="search", key="k", status="started"))
    return ledger


def followed(ledger: Ledger, *, once: bool = False) -> tuple[str, str]:
    """How the run ended, and what was shown."""
    out = io.StringIO()
    reader = LedgerReader(ledger.path)
    return watch.follow(Console(out=out), FollowedRun(trials=4), reader, once=once), out.getvalue()


def test_it_ends_when_the_run_is_over(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def finish(_seconds: float) -> None:
        ledger.append(StageEvent(stage="summary", key="k", status="finished", seconds=0.0))

    monkeypatch.setattr(time, "sleep", finish)
    assert followed(ledger)[0] == "the run is over"


def test_it_ends_when_a_stage_failed(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_seconds: float) -> None:
        ledger.append(StageEvent(stage="search", key="k", status="failed", reason="no slot came up"))

    monkeypatch.setattr(time, "sleep", fail)
    assert "stage search failed: no slot came up" in followed(ledger)[0]


def test_it_ends_when_the_process_that_held_the_folder_is_gone(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = filelock.FileLock(ledger.folder / LOCK)
    lock.acquire()
    monkeypatch.setattr(time, "sleep", lambda _seconds: lock.release())
    assert "ended without a word" in followed(ledger)[0]


def test_a_finished_run_that_still_holds_the_folder_is_waited_for(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be writing MLflow's record."""
    ledger.append(StageEvent(stage="summary", key="k", status="finished", seconds=0.0))
    lock = filelock.FileLock(ledger.folder / LOCK)
    lock.acquire()
    looks = []

    def look(_seconds: float) -> None:
        looks.append(1)
        lock.release()

    monkeypatch.setattr(time, "sleep", look)
    assert followed(ledger)[0] == "the run is over"
    assert looks


def test_a_single_look_does_not_wait(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: pytest.fail("it waited"))
    ended, shown = followed(ledger, once=True)
    assert ended == ""
    assert "search" in shown


def test_silence_is_told_where_nobody_here_holds_the_folder(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "QUIET_S", -1.0)
    assert "no run of this machine holds the folder" in followed(ledger, once=True)[1]


def test_ctrl_c_leaves_without_an_error(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    watch.watch("digits", out=ledger.folder)
    assert "error" not in capsys.readouterr().err
