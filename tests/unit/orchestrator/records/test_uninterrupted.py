"""Ctrl-C at any moment of a ledger's writing leaves whole lines in their order."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.records.events import Agreed
from orchestrator.records.ledger import Ledger
from orchestrator.records.uninterrupted import uninterrupted


def agreed(number: int) -> Agreed:
    return Agreed(key=f"k{number}", value=str(number))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["before the line is on disk", "after it is, before it counts"])
def test_an_event_that_is_interrupted_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, when: str
) -> None:
    def interrupt(number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, interrupt)
    sync: Callable[[int], None] = os.fsync
    asked = []

    def interrupted(descriptor: int) -> None:
        asked.append(descriptor)
        if when.startswith("after"):
            sync(descriptor)
        if len(asked) == 2:
            os.kill(os.getpid(), number)
        if when.startswith("before"):
            sync(descriptor)

    monkeypatch.setattr(os, "fsync", interrupted)
    ledger = Ledger(tmp_path)
    try:
        ledger.append(agreed(0))
        with pytest.raises(KeyboardInterrupt):
            ledger.append(agreed(1))
        assert signal.getsignal(number) is interrupt
    finally:
        signal.signal(number, before)
    ledger.append(agreed(2))
    ledger.close()
    again = Ledger(tmp_path)
    again.close()
    assert [event.seq for event in again.events()] == [0, 1, 2]
    assert [event.key for event in again.events_of(Agreed)] == ["k0", "k1", "k2"]


def test_signals_that_come_within_are_heard_once_behind_it_and_other_threads_go_their_way() -> None:
    heard: list[str] = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append("SIGINT"))
    try:
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            thread = threading.Thread(target=lambda: heard.append(str(uninterrupted().__enter__())))
            thread.start()
            thread.join()
            assert heard == ["None"]
        assert heard == ["None", "SIGINT"]
    finally:
        signal.signal(signal.SIGINT, before)
