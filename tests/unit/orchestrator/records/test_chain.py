"""Ledgers that were edited, cut or mixed up: the line is named, and nothing of it becomes a figure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.records.chain import LedgerMark, mark_in
from orchestrator.records.events import Agreed, EpochEnded, Event, StageEvent, TrialStarted
from orchestrator.records.ledger import Ledger
from orchestrator.records.summary import Summary, write_summary
from trainables.config import Role
from trainables.errors import StillhouseError

EVENTS: list[Event] = [
    StageEvent(stage="cache", key="k", status="finished", seconds=1.5, result={"rows": 7}),
    TrialStarted(trial="t", role=Role.SEARCH, search="s", objective="kd", parameters={}, spec={"seed": 1}),
    *(EpochEnded(trial="t", epoch=e, metrics={"selection/accuracy": 0.1 * e}) for e in range(1, 5)),
    Agreed(key="precision/cpu", value="bf16 \u2028"),
]
BYTES = settings(max_examples=400, deadline=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def lines(folder: Path) -> list[bytes]:
    ledger = Ledger(folder)
    for event in EVENTS:
        ledger.append(event)
    ledger.close()
    return ledger.path.read_bytes().splitlines(keepends=True)


def refusal(folder: Path, content: bytes) -> str:
    """What is said of a ledger with this content; empty where it is read."""
    (folder / "ledger.jsonl").write_bytes(content)
    try:
        Ledger(folder).close()
    except StillhouseError as error:
        assert "\n" not in str(error)
        return str(error)
    return ""


def named(text: str) -> int:
    """The line that a refusal names."""
    found = re.search(r"ledger\.jsonl:(\d+): ", text)
    assert found, text or "it was read"
    return int(found[1])


def earlier(lines: list[bytes]) -> list[bytes]:
    """The lines as an earlier version wrote them."""
    return [re.sub(rb'^{"check":"[0-9a-f]{16}",', b"{", line) for line in lines]


@BYTES
@given(st.data())
def test_any_byte_that_changes_is_found_and_its_line_named(
    folder: Path, lines: list[bytes], data: st.DataObject
) -> None:
    number = data.draw(st.integers(0, len(lines) - 1))
    at = data.draw(st.integers(0, len(lines[number]) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != lines[number][at]))
    changed = lines[number][:at] + bytes([value]) + lines[number][at + 1 :]
    text = refusal(folder, b"".join([*lines[:number], changed, *lines[number + 1 :]]))
    assert named(text) == number + 1


@given(st.data())
def test_a_line_that_is_removed_twice_there_or_elsewhere_is_found_and_named(
    folder: Path, lines: list[bytes], data: st.DataObject
) -> None:
    places = st.integers(0, len(lines) - 1)
    first, other = data.draw(places), data.draw(places)
    kept = data.draw(st.sampled_from(["removed", "twice", "swapped"]))
    mixed = list(lines)
    if kept == "removed" and first < len(lines) - 1:  # of the last one see below
        del mixed[first]
        wrong = first
    elif kept == "twice":
        mixed.insert(other, lines[first])
        wrong = other + (other == first)
    elif first != other:
        mixed[first], mixed[other] = mixed[other], mixed[first]
        wrong = min(first, other)
    else:
        return
    assert named(refusal(folder, b"".join(mixed))) == wrong + 1


def test_a_ledger_that_is_as_it_was_is_read(folder: Path, lines: list[bytes]) -> None:
    assert refusal(folder, b"".join(lines)) == ""


@pytest.mark.parametrize(
    ("number", "changed", "said"),
    [
        (4, (b"0.2", b"0.9"), "its checksum does not fit: it was changed after it was written"),
        (3, (b'"seq":2', b'"seq":3'), "it is event 3 where 2 belongs: lines were removed, put in or moved"),
    ],
)
def test_what_is_wrong_with_a_line_is_said_with_the_next_step(
    folder: Path, lines: list[bytes], number: int, changed: tuple[bytes, bytes], said: str
) -> None:
    edited = [line.replace(*changed) if at == number else line for at, line in enumerate(lines, start=1)]
    text = refusal(folder, b"".join(edited))
    assert text.endswith(f"ledger.jsonl:{number}: {said}; restore the file or move it away")


def cuts(content: bytes, ends: set[int]) -> Iterator[int]:
    """Where a crash may have stopped the writing of the last line, or of the one before."""
    yield from (cut for cut in range(len(content) - 200, len(content)) if cut not in ends)


def test_wherever_a_crash_cut_the_last_line_the_ones_above_are_read(folder: Path, lines: list[bytes]) -> None:
    content = b"".join(lines)
    for cut in cuts(content, {len(content) - len(lines[-1])}):
        assert refusal(folder, content[:cut]) == ""
        events = Ledger(folder).events()
        assert len(events) == content[:cut].count(b"\n")
    (folder / "ledger.jsonl").write_bytes(content[:-3])
    ledger = Ledger(folder)
    ledger.append(EVENTS[-1])
    ledger.close()
    assert len(Ledger(folder).events()) == len(EVENTS)


def test_an_older_ledger_is_read_as_unchecked_and_goes_on_checked(folder: Path, lines: list[bytes]) -> None:
    assert refusal(folder, b"".join(earlier(lines))) == ""
    ledger = Ledger(folder)
    caveat = ledger.mark().caveat
    assert caveat is not None
    assert caveat.startswith(f"The ledger's first {len(lines)} lines are of an earlier version")
    ledger.append(Agreed(key="k", value="v"))
    ledger.close()
    content = ledger.path.read_bytes()
    assert Ledger(folder).mark().unchecked == len(lines)
    # From here on the old lines are covered too.
    text = refusal(folder, content.replace(b"0.2", b"0.9"))
    assert named(text) == len(lines) + 1
    assert f"or one of the {len(lines)} lines above it, which an earlier version wrote" in text
    assert named(refusal(folder, content + earlier(lines)[0])) == len(lines) + 2


def test_a_line_that_is_missing_in_an_older_ledger_is_found_by_the_numbers(
    folder: Path, lines: list[bytes]
) -> None:
    old = earlier(lines)
    assert named(refusal(folder, b"".join([*old[:2], *old[3:]]))) == 3


def test_a_new_ledger_has_no_caveat(folder: Path, lines: list[bytes]) -> None:
    assert refusal(folder, b"".join(lines)) == ""
    assert Ledger(folder).mark().caveat is None
    assert LedgerMark(events=1, check="", unchecked=1).caveat is not None


def test_a_ledger_that_lost_lines_at_its_end_after_it_was_finished_is_refused(
    tmp_path: Path, lines: list[bytes], summary: Summary
) -> None:
    (tmp_path / "ledger.jsonl").write_bytes(b"".join(lines))
    ledger = Ledger(tmp_path)
    ledger.close()
    write_summary(tmp_path / "summary.json", summary.model_copy(update={"ledger": ledger.mark()}))
    ledger = Ledger(tmp_path)
    ledger.append(Agreed(key="more", value="later"))  # it may go on
    ledger.close()
    assert refusal(tmp_path, ledger.path.read_bytes()) == ""
    text = refusal(tmp_path, b"".join(lines[:-1]))
    assert f"it has {len(lines) - 1} lines of the {len(lines)} that it had when summary.json" in text
    assert "move summary.json away to go on with what is left" in text
    assert "are not those that summary.json was made from" in refusal(
        tmp_path, b"".join(earlier(lines)).replace(b"0.2", b"0.9")
    )
    (tmp_path / "ledger.jsonl").unlink()  # moved away: what begins is another one
    ledger = Ledger(tmp_path)
    assert ledger.events() == []
    ledger.append(Agreed(key="new", value="run"))  # interrupted here, it goes on
    assert len(Ledger(tmp_path).events()) == 1
    assert not (tmp_path / "summary.json").exists()
    assert (tmp_path / "summary.json.before").exists()


def test_a_summary_that_cannot_be_read_or_is_older_tells_nothing_of_the_ledger(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    assert mark_in(path) is None
    for content in ("{", "[]", json.dumps({"ledger": None}), json.dumps({"ledger": {"events": -1}})):
        path.write_text(content)
        assert mark_in(path) is None
