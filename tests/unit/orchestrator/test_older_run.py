"""A finished run of version 0.1.0 is read and shown: nothing that it kept has become unreadable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.records.ledger import Ledger
from tests.older_runs.unpacking import unpack_older_run
from trainables.config import Role

CHAMPION = "kd-d9209371c8ed-seed1"


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = unpack_older_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    return path


def answer(*words: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_its_ledger_tells_every_trial_with_its_role_and_figures(older: Path) -> None:
    ledger = Ledger(older.parent / "out" / "three_trials")
    ledger.close()
    searched = ledger.trials(role=Role.SEARCH)
    assert [(record.objective, record.status) for record in searched] == [("kd", "completed")] * 3
    assert len(ledger.trials(role=Role.FINALIST)) == len(ledger.trials(role=Role.BASELINE)) == 2
    assert all(0 < record.best["selection/accuracy"] < 1 for record in ledger.trials())


def test_running_it_again_shows_its_champion_and_does_nothing(older: Path) -> None:
    out = older.parent / "out" / "three_trials"
    before = (out / "ledger.jsonl").read_bytes()
    assert answer("run", str(older))["champion"]["trial_id"] == CHAMPION
    shown = CliRunner().invoke(app, ["run", str(older)])
    assert "champion: finalist 1, kd, 610 parameters" in shown.stdout
    assert f"exported: {CHAMPION}, the seed" in shown.stdout
    assert "lines are of an earlier version, which wrote no checksums" in shown.stdout
    assert (out / "ledger.jsonl").read_bytes() == before


def test_its_cache_is_sound_to_the_last_byte(older: Path) -> None:
    (cache,) = (older.parent / "out" / "three_trials" / "cache").iterdir()
    assert answer("cache", "verify", str(cache), "--deep")["ok"]
    assert answer("cache", "verify", str(older), "--deep")["ok"]


def test_its_champion_answers_as_it_did(older: Path) -> None:
    summary = json.loads((older.parent / "out" / "three_trials" / "summary.json").read_text())
    finalist = summary["finalists"][0]
    place = finalist["trials"].index(CHAMPION)
    for split in ("selection", "test"):
        found = answer("evaluate", str(older), "--split", split)
        assert found["trial"] == CHAMPION
        # On another processor the last bits of a logit may differ, and with them an image at the margin.
        told = finalist[f"{split}_accuracies"][place]
        assert found["student"]["accuracy"] == pytest.approx(told, abs=1.5 / found["images"])
        told = summary["teacher"][f"{split}_accuracy"]
        assert found["teacher"]["accuracy"] == pytest.approx(told, abs=1.5 / found["images"])


def test_its_objectives_are_compared(older: Path) -> None:
    done = CliRunner().invoke(app, ["methods", str(older)])
    assert done.exit_code == 0, done.output
    assert "`kd`" in done.stdout
    assert "lines are of an earlier version, which wrote no checksums" in done.stdout
