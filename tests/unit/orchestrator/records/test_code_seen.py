"""Edited code is told and is other code; code that is put back finds what it had made."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.records.code_seen import edited_code, is_noted, note_code
from orchestrator.records.ledger import Ledger
from trainables.user_code import Sources

FIRST = {name: Sources({"task": "1", "net": "1"}) for name in ("task:data", "task:student")}
EDITED = {name: Sources({"task": "1", "net": "2", "more": "1"}) for name in FIRST}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def test_the_first_code_changes_no_fingerprint_and_is_noted_once(ledger: Ledger) -> None:
    assert not is_noted(FIRST, ledger)
    assert edited_code(FIRST, ledger) == {}
    assert list(note_code(FIRST, ledger)) == []
    n_events = len(ledger.events())
    assert list(note_code(FIRST, ledger)) == []
    assert len(ledger.events()) == n_events == 2
    assert is_noted(FIRST, Ledger(ledger.folder))
    assert edited_code(FIRST, Ledger(ledger.folder)) == {}


def test_edited_code_is_told_once_with_what_was_edited_and_has_its_digest(ledger: Ledger) -> None:
    list(note_code(FIRST, ledger))
    assert edited_code(EDITED, ledger) == {name: sources.digest for name, sources in EDITED.items()}
    (line,) = note_code(EDITED, ledger)
    assert line.startswith(
        "the code of task:data, task:student has changed since it was last used here (more, net)"
    )
    assert list(note_code(EDITED, ledger)) == []
    assert edited_code(EDITED, ledger).keys() == EDITED.keys()


def test_code_that_is_put_back_is_the_first_again(ledger: Ledger) -> None:
    list(note_code(FIRST, ledger))
    list(note_code(EDITED, ledger))
    assert edited_code(FIRST, ledger) == {}
    assert len(list(note_code(FIRST, ledger))) == 1


def test_without_factories_there_is_nothing_to_note(ledger: Ledger) -> None:
    assert is_noted({}, ledger)
    assert list(note_code({}, ledger)) == []
    assert ledger.events() == []
