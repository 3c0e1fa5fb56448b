"""A ledger is read as it grows, and never written."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.records.events import Agreed
from orchestrator.records.following.ledger_reader import LedgerReader
from orchestrator.records.ledger import Ledger
from trainables.errors import StillhouseError


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def agree(ledger: Ledger, key: str) -> None:
    ledger.append(Agreed(key=key, value="v"))


def keys(reader: LedgerReader) -> list[str]:
    return [event.key for event in reader.read() if isinstance(event, Agreed)]


def test_a_look_gives_what_was_added_since_the_last_one(ledger: Ledger) -> None:
    reader = LedgerReader(ledger.path)
    assert keys(reader) == []
    agree(ledger, "a")
    agree(ledger, "b")
    assert keys(reader) == ["a", "b"]
    agree(ledger, "c")
    assert keys(reader) == ["c"]
    assert keys(reader) == []
    assert reader.count == 3


def test_a_line_that_is_not_whole_is_read_when_it_is(ledger: Ledger) -> None:
    agree(ledger, "a")
    agree(ledger, "b")
    content = ledger.path.read_bytes()
    ledger.path.write_bytes(content[:-10])
    reader = LedgerReader(ledger.path)
    assert keys(reader) == ["a"]
    ledger.path.write_bytes(content)
    assert keys(reader) == ["b"]


def test_a_ledger_that_is_not_there_yet_has_no_events(tmp_path: Path) -> None:
    assert LedgerReader(tmp_path / "ledger.jsonl").read() == []


def test_an_edited_line_is_refused_by_its_number(ledger: Ledger) -> None:
    agree(ledger, "a")
    agree(ledger, "b")
    ledger.path.write_bytes(ledger.path.read_bytes().replace(b'"b"', b'"x"'))
    with pytest.raises(StillhouseError, match=r"ledger\.jsonl: line 2: its checksum does not fit"):
        LedgerReader(ledger.path).read()


def test_a_line_that_is_no_event_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"seq":0,"time_ms":1,"kind":"agreed"}\n', encoding="utf-8")
    with pytest.raises(StillhouseError, match="line 1 is no ledger event"):
        LedgerReader(path).read()


def test_a_ledger_that_was_replaced_by_a_shorter_one_is_refused(ledger: Ledger) -> None:
    agree(ledger, "a")
    reader = LedgerReader(ledger.path)
    reader.read()
    ledger.path.write_bytes(b"")
    with pytest.raises(StillhouseError, match="shorter than it was"):
        reader.read()
