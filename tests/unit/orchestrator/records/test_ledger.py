from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from orchestrator.records.events import Agreed, EpochEnded, StageEvent, TrialEnded, TrialStarted
from orchestrator.records.ledger import Ledger
from tests.unit.full_disk import largest_file
from trainables.config import Role
from trainables.errors import StillhouseError


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "out")


def again(ledger: Ledger) -> Ledger:
    return Ledger(ledger.path.parent)


def start(ledger: Ledger, trial: str, *, role: Role = Role.SEARCH, search: str = "s") -> None:
    ledger.append(
        TrialStarted(
            trial=trial,
            role=role,
            search=search,
            objective="kd",
            parameters={"temperature": 4.0},
            spec={"seed": 1},
            sampled={"kd": {"temperature": 4.0}},
        )
    )


def end(ledger: Ledger, trial: str, **changes: Any) -> None:
    fields: dict[str, Any] = {
        "status": "completed",
        "reason": None,
        "epochs": 2,
        "best_epoch": 1,
        "best": {"selection/accuracy": 0.9},
        "final": {"selection/accuracy": 0.8},
        "checkpoint": "best.safetensors",
    }
    ledger.append(TrialEnded(trial=trial, **(fields | changes)))


def test_events_are_numbered_and_found_again(ledger: Ledger) -> None:
    first = ledger.append(StageEvent(stage="cache", key="k", status="started"))
    second = ledger.append(Agreed(key="note", value="é"))
    assert [first.seq, second.seq] == [0, 1]
    assert 0 < first.time_ms <= second.time_ms
    assert again(ledger).events() == ledger.events() == [first, second]
    assert ledger.events(since=1) == [second]


def test_a_ledger_that_is_opened_again_goes_on(ledger: Ledger) -> None:
    ledger.append(Agreed(key="note", value="one"))
    ledger.close()
    second = again(ledger)
    assert second.append(Agreed(key="note", value="two")).seq == 1
    assert [event.value for event in again(ledger).events_of(Agreed)] == ["one", "two"]


def test_an_event_is_on_disk_before_append_returns(ledger: Ledger) -> None:
    event = ledger.append(Agreed(key="note", value="x"))
    line = json.loads(ledger.path.read_text())
    assert line == {"check": ledger.check_at(1), **event.plain()}


@pytest.mark.parametrize("cut", [1, 10, 30])
def test_a_last_line_that_was_cut_short_is_dropped_and_the_file_goes_on(ledger: Ledger, cut: int) -> None:
    ledger.append(Agreed(key="note", value="whole"))
    ledger.append(Agreed(key="note", value="cut"))
    ledger.path.write_bytes(ledger.path.read_bytes()[:-cut])
    second = again(ledger)
    assert [event.value for event in second.events_of(Agreed)] == ["whole"]
    second.append(Agreed(key="note", value="next"))
    assert [(e.seq, e.value) for e in again(ledger).events_of(Agreed)] == [(0, "whole"), (1, "next")]


def test_whoever_only_reads_leaves_a_half_written_line_to_its_writer(ledger: Ledger) -> None:
    """A command that looks at a run in progress must not cut what is being written."""
    ledger.append(Agreed(key="note", value="whole"))
    ledger.append(Agreed(key="note", value="slow"))
    content = ledger.path.read_bytes()
    ledger.path.write_bytes(content[:-40])
    with ledger.path.open("ab") as writer:
        reader = again(ledger)
        assert [event.value for event in reader.events_of(Agreed)] == ["whole"]
        writer.write(content[-40:])
    reader.close()
    assert [event.value for event in again(ledger).events_of(Agreed)] == ["whole", "slow"]


def test_a_second_writer_is_refused(ledger: Ledger) -> None:
    second = again(ledger)
    ledger.append(Agreed(key="note", value="first writer"))
    with pytest.raises(StillhouseError, match="another process has written to it since it was opened"):
        second.append(Agreed(key="note", value="second writer"))
    assert [event.value for event in again(ledger).events_of(Agreed)] == ["first writer"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"garbage\n",
        b'{"seq": 1, "kin\n',
        b"\n",
        b"[1]\n",
        b'{"no": "kind"}\n',
        b'{"kind": "epoch", "trial": "unheard of", "epoch": 1, "metrics": {}}\n',
        b'{"seq":1,"time_ms":5,"kind":"epoch","trial":"unheard of","epoch":1,"metrics":{}}\n',
        b"\xff\xfe{}\n",
    ],
)
def test_a_line_that_is_no_event_is_refused_with_its_number(ledger: Ledger, garbage: bytes) -> None:
    unchecked = b'{"seq":0,"time_ms":5,"kind":"agreed","key":"note","value":"good"}\n'
    ledger.path.write_bytes(unchecked + garbage)
    with pytest.raises(StillhouseError, match=r"ledger\.jsonl:2: not a ledger event.*restore the file"):
        again(ledger)
    assert ledger.path.read_bytes() == unchecked + garbage


def test_a_disk_that_is_full_costs_only_the_event_that_did_not_fit(ledger: Ledger) -> None:
    ledger.append(Agreed(key="note", value="before"))
    with largest_file(ledger.path.stat().st_size + 20):
        for _ in range(2):
            with pytest.raises(StillhouseError, match=r"cannot write the ledger .*what was there is intact"):
                ledger.append(Agreed(key="note", value="does not fit"))
    assert ledger.append(Agreed(key="note", value="after")).seq == 1
    assert [(e.seq, e.value) for e in again(ledger).events_of(Agreed)] == [(0, "before"), (1, "after")]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StillhouseError, match=r"cannot write the ledger .*file/out/ledger\.jsonl"):
        Ledger(tmp_path / "file" / "out")


def test_many_threads_write_whole_lines(ledger: Ledger) -> None:
    def write(name: int) -> None:
        for number in range(20):
            ledger.append(Agreed(key="note", value=f"{name}-{number}"))

    threads = [threading.Thread(target=write, args=(name,)) for name in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = again(ledger).events_of(Agreed)
    assert [event.seq for event in events] == list(range(100))
    assert {event.value for event in events} == {f"{n}-{m}" for n in range(5) for m in range(20)}


def test_the_latest_result_of_a_stage_counts(ledger: Ledger) -> None:
    for result in (1, 2):
        ledger.append(
            StageEvent(stage="cache", key="k", status="finished", seconds=1.0, result={"rows": result})
        )
    ledger.append(StageEvent(stage="cache", key="k", status="failed", seconds=1.0, reason="x"))
    ledger.append(StageEvent(stage="cache", key="other", status="started"))
    found = again(ledger).finished("cache", "k")
    assert found is not None
    assert found.result == {"rows": 2}
    assert ledger.finished("cache", "other") is None
    assert ledger.finished("search", "k") is None


def test_a_trial_is_folded_from_its_events(ledger: Ledger) -> None:
    start(ledger, "t")
    accuracies = (0.5, 0.9, 0.9, 0.7)
    for epoch, accuracy in enumerate(accuracies, start=1):
        ledger.append(EpochEnded(trial="t", epoch=epoch, metrics={"selection/accuracy": accuracy}))
    running = again(ledger).trial("t")
    assert running is not None
    assert (running.status, running.epochs, running.best_epoch) == ("running", 4, 2)
    assert (running.best, running.final) == ({"selection/accuracy": 0.9}, {"selection/accuracy": 0.7})
    assert (running.parameters, running.sampled) == ({"temperature": 4.0}, {"kd": {"temperature": 4.0}})
    end(ledger, "t", epochs=4, best_epoch=3)
    ended = again(ledger).trial("t")
    assert ended is not None
    assert (ended.status, ended.best_epoch) == ("completed", 3)
    assert ended.checkpoint == str(ledger.folder / "best.safetensors")
    assert ended.ended_ms is not None
    assert ended.ended_ms >= ended.started_ms > 0
    assert ended == ledger.trial("t")


def test_a_trial_that_starts_again_starts_from_nothing(ledger: Ledger) -> None:
    start(ledger, "t", role=Role.FINALIST)
    ledger.append(EpochEnded(trial="t", epoch=1, metrics={"selection/accuracy": 0.5}))
    end(ledger, "t", status="failed", reason="no luck", checkpoint=None)
    start(ledger, "t", role=Role.FINALIST)
    record = again(ledger).trial("t")
    assert record is not None
    assert (record.status, record.reason, record.epochs, record.best) == ("running", None, 0, {})


def test_trials_are_found_by_search_and_role_in_the_order_of_their_start(ledger: Ledger) -> None:
    start(ledger, "b")
    start(ledger, "a", role=Role.FINALIST)
    start(ledger, "c", search="other")
    assert [r.trial for r in ledger.trials()] == ["b", "a", "c"]
    assert [r.trial for r in ledger.trials(search="s")] == ["b", "a"]
    assert [r.trial for r in ledger.trials(role=Role.SEARCH)] == ["b", "c"]
    assert [r.trial for r in ledger.trials(search="s", role=Role.SEARCH)] == ["b"]
    assert ledger.trial("unheard of") is None
