"""The kinds of a ledger's events: their lines, and what happens to those of another version."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from orchestrator.records.events import (
    KINDS,
    Agreed,
    ArtifactAdded,
    CodeSeen,
    EpochEnded,
    Event,
    FiguresAdded,
    GroupAdded,
    LedgerIdentity,
    StageEpoch,
    StageEvent,
    TeacherPrepared,
    TrialEnded,
    TrialStarted,
    UnknownEvent,
    read_event,
)
from orchestrator.records.ledger import Ledger
from orchestrator.records.ledger_writer import history
from orchestrator.tracking.projection import Projection
from trainables.config import Role
from trainables.errors import StillhouseError

METRICS = {"selection/accuracy": 0.5, "seconds": 2.0}
# The lines that version 0.1 writes, to the byte, behind their number and time.
WRITTEN: list[tuple[Event, str]] = [
    (
        StageEvent(stage="cache", key="k", status="started"),
        '"kind":"stage","stage":"cache","key":"k","status":"started"',
    ),
    (
        StageEvent(stage="cache", key="k", status="finished", seconds=1.5, result={"rows": 3}),
        '"kind":"stage","stage":"cache","key":"k","status":"finished","seconds":1.5,"result":{"rows":3}',
    ),
    (
        StageEvent(stage="cache", key="k", status="failed", seconds=1.5, reason="no room"),
        '"kind":"stage","stage":"cache","key":"k","status":"failed","seconds":1.5,"reason":"no room"',
    ),
    (
        TrialStarted(
            trial="t",
            role=Role.SEARCH,
            search="s",
            objective="kd",
            parameters={"temperature": 4.0},
            spec={"seed": 1, "fork": None},
            sampled={},
        ),
        '"kind":"trial_started","trial":"t","role":"search","search":"s","objective":"kd",'
        '"parameters":{"temperature":4.0},"spec":{"seed":1,"fork":null},"sampled":{}',
    ),
    (
        EpochEnded(trial="t", epoch=1, metrics={"train/loss": math.inf, **METRICS}),
        '"kind":"epoch","trial":"t","epoch":1,'
        '"metrics":{"train/loss":Infinity,"selection/accuracy":0.5,"seconds":2.0}',
    ),
    (
        TrialEnded(
            trial="t",
            status="completed",
            epochs=1,
            final=METRICS,
            reason=None,
            best_epoch=1,
            best=METRICS,
            checkpoint="best.safetensors",
        ),
        '"kind":"trial_ended","trial":"t","status":"completed","epochs":1,'
        '"final":{"selection/accuracy":0.5,"seconds":2.0},"reason":null,"best_epoch":1,'
        '"best":{"selection/accuracy":0.5,"seconds":2.0},"checkpoint":"best.safetensors"',
    ),
    (Agreed(key="precision/cpu", value="bf16"), '"kind":"agreed","key":"precision/cpu","value":"bf16"'),
    (
        CodeSeen(factory="task:student", files={"task": "3f2a"}),
        '"kind":"code","factory":"task:student","files":{"task":"3f2a"}',
    ),
    (
        FiguresAdded(trial="t", figures={"params": 610.0, "size_bytes": 4000}),
        '"kind":"figures","trial":"t","figures":{"params":610.0,"size_bytes":4000}',
    ),
    (
        GroupAdded(
            group="t-seeds",
            role=Role.FINALIST,
            search="s",
            objective="kd",
            parameters={"temperature": 4.0},
            trials=("t-seed1",),
            figures={"acc": 0.5},
        ),
        '"kind":"group","group":"t-seeds","role":"finalist","search":"s","objective":"kd",'
        '"parameters":{"temperature":4.0},"trials":["t-seed1"],"figures":{"acc":0.5}',
    ),
    (
        ArtifactAdded(trial=None, path="/out/report.html", folder=None),
        '"kind":"artifact","trial":null,"path":"/out/report.html","folder":null',
    ),
    (LedgerIdentity(ledger="3f2a"), '"kind":"identity","ledger":"3f2a"'),
    (
        StageEpoch(stage="preparation ss_head", key="k", epoch=1, metrics={"train/loss": 0.5}),
        '"kind":"stage_epoch","stage":"preparation ss_head","key":"k","epoch":1,"metrics":{"train/loss":0.5}',
    ),
    (
        TeacherPrepared(part="ss_head", sha256="3f2a", recipe={"epochs": 60, "lr": 0.05}),
        '"kind":"prepared","part":"ss_head","sha256":"3f2a","recipe":{"epochs":60,"lr":0.05}',
    ),
]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def write(ledger: Ledger, *lines: dict[str, Any]) -> Ledger:
    """What another version wrote into the file, opened again."""
    with ledger.path.open("a") as file:
        for seq, line in enumerate(lines, start=len(ledger.events())):
            file.write(json.dumps({"seq": seq, "time_ms": 1, **line}) + "\n")
    return Ledger(ledger.path.parent)


def test_every_kind_is_among_the_examples_and_says_what_it_is() -> None:
    assert {event.kind for event, _ in WRITTEN} == set(KINDS)
    for name, kind in KINDS.items():
        assert kind.model_fields["kind"].default == name
        assert kind.__doc__


@pytest.mark.parametrize(("event", "line"), WRITTEN)
def test_a_line_holds_behind_its_checksum_what_it_held_in_earlier_versions_to_the_byte(
    ledger: Ledger, event: Event, line: str
) -> None:
    if isinstance(event, EpochEnded | TrialEnded):
        ledger.append(WRITTEN[3][0])
    written = ledger.append(event)
    last = ledger.path.read_text().splitlines()[-1]
    held, count = re.subn(r'^{"check":"[0-9a-f]{16}",', "{", last)
    assert (held, count) == (f'{{"seq":{written.seq},"time_ms":{written.time_ms},{line}}}', 1)
    assert Ledger(ledger.path.parent).events()[-1] == written


def test_a_kind_of_a_newer_version_is_kept_and_changes_nothing(ledger: Ledger) -> None:
    ledger = write(ledger, WRITTEN[3][0].plain())
    before, content = ledger.trials(), {"kind": "paused", "trial": "t", "why": ["power", 3]}
    again = write(ledger, content)
    (unknown,) = again.events_of(UnknownEvent)
    assert (unknown.seq, unknown.kind) == (1, "paused")
    assert unknown.plain() == unknown.content == {"seq": 1, "time_ms": 1, **content}
    assert again.trials() == before
    assert history(again, search="s") == {"t": []}
    assert Projection().fold([unknown]) == []
    assert again.append(WRITTEN[6][0]).seq == 2
    assert [event.kind for event in Ledger(ledger.path.parent).events()][1:] == ["paused", "agreed"]


def test_a_field_of_a_newer_version_is_passed_over_and_stays_in_the_file(ledger: Ledger) -> None:
    again = write(ledger, {"kind": "agreed", "key": "k", "value": "v", "since": 3})
    (agreed,) = again.events_of(Agreed)
    assert (agreed.key, agreed.value) == ("k", "v")
    assert '"since": 3' in ledger.path.read_text()


def test_a_field_that_an_earlier_version_did_not_write_has_its_default(ledger: Ledger) -> None:
    start = {key: value for key, value in WRITTEN[3][0].plain().items() if key != "sampled"}
    assert write(ledger, start).trials()[0].sampled == {}


@pytest.mark.parametrize(
    "line",
    [
        {"kind": "agreed", "key": "k"},
        {"kind": "epoch", "trial": "t", "epoch": 1},
        {"kind": "stage", "stage": "cache", "key": "k", "status": "asleep"},
        {"kind": "trial_started", "trial": "t", "role": "spectator"},
    ],
)
def test_a_known_kind_that_lacks_a_field_or_holds_what_it_must_not_is_refused(
    ledger: Ledger, line: dict[str, Any]
) -> None:
    with pytest.raises(StillhouseError, match=r"ledger\.jsonl:1: not a ledger event"):
        write(ledger, line)


def test_a_field_that_no_kind_has_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        Agreed(key="k", value="v", since=3)  # type: ignore[call-arg]
    assert read_event({"kind": "agreed", "key": "k", "value": "v", "since": 3}) == Agreed(key="k", value="v")
