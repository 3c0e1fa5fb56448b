"""Ledgers and summaries that a disk damaged or a person edited: used, or refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator.records.events import EpochEnded, StageEvent, TrialEnded, TrialStarted
from orchestrator.records.ledger import Ledger
from orchestrator.records.summary import Summary, read_summary, write_summary
from orchestrator.tracking.cursor import CursorFile, TrackingCursor
from tests.unit.spoilt_files import refusals, spoilt
from trainables.config import Role
from trainables.errors import ConfigError, StillhouseError


def lines(folder: Path) -> bytes:
    """A ledger with events of four kinds."""
    ledger = Ledger(folder)
    result = {"weights": str(folder / "w"), "deep": {"path": "p"}}
    ledger.append(StageEvent(stage="teacher", key="k", status="finished", seconds=1.0, result=result))
    names: dict[str, Any] = {"role": Role.SEARCH, "search": "s", "objective": "kd", "parameters": {}}
    ledger.append(TrialStarted(trial="t", spec={}, sampled={}, **names))
    ledger.append(EpochEnded(trial="t", epoch=1, metrics={"selection/accuracy": 0.5}))
    figures: dict[str, Any] = {"best_epoch": 1, "best": {"selection/accuracy": 0.5}, "final": {}}
    ended: dict[str, Any] = {"status": "completed", "reason": None, "epochs": 1, "checkpoint": "c", **figures}
    ledger.append(TrialEnded(trial="t", **ended))
    ledger.close()
    return ledger.path.read_bytes()


def test_a_damaged_ledger_is_refused_in_one_line_with_its_number(tmp_path: Path) -> None:
    good = lines(tmp_path / "good")
    shutil.rmtree(tmp_path / "good")
    (tmp_path / "out").mkdir()

    def read(path: Path) -> None:
        ledger = Ledger(path.parent)
        ledger.close()

    assert refusals(tmp_path / "out" / "ledger.jsonl", spoilt(good), read) > 50


def test_a_damaged_summary_is_refused_in_one_line(summary: Summary, tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_summary(path, summary)
    assert refusals(path, spoilt(path.read_bytes()), read_summary) > 50


BRACKETS = 200_000 * b"["
WRONG = [
    BRACKETS,
    b"[]",
    b"null",
    b"1",
    b"\xff",
    b"{}",
    b'{"kind": []}',
    b'{"kind": "trial_started"}',
    b"NaN",
    b'{"seq":0,"kind":' + BRACKETS,
    b'{"seq":0}',
    b'{"seq":0,"kind":"trial_started"}',
]


@pytest.mark.parametrize("content", WRONG)
def test_records_of_a_wrong_type_are_told_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_bytes(content + b"\n")
    with pytest.raises(StillhouseError, match=r"ledger\.jsonl:1: not a ledger event \([^\n]*\); restore"):
        Ledger(tmp_path)
    (tmp_path / "summary.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"no summary of this version: [^\n]*; run the experiment again$"):
        read_summary(tmp_path / "summary.json")


@pytest.mark.parametrize("content", [*WRONG, b'{"schema": 2}', b'{"schema": 2, "stores": [1]}'])
def test_a_damaged_place_in_mlflow_is_forgotten(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "mlflow.json").write_bytes(content)
    cursor = CursorFile(tmp_path, "http://server", "mine")
    assert cursor.load() is None
    cursor.save(TrackingCursor(ledger="l", experiment_id="1", parent_run_id="r", cursor=3))
    assert cursor.load() is not None
