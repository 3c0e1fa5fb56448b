"""The trials of a ledger: their ranks, and the flat table that other programs read."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.records.events import EpochEnded, TrialEnded, TrialStarted
from orchestrator.records.ledger import Ledger
from orchestrator.records.selection import rank_trials
from orchestrator.reports.trial_table import ranked, ranking_table, write_trials
from tests.older_runs.unpacking import unpack_older_run
from trainables.config import Role
from trainables.errors import ConfigError

FIGURE = "selection/accuracy"


def trial(
    ledger: Ledger, name: str, accuracy: float | None, *, status: str = "completed", **parameters: object
) -> None:
    """One that ended after an epoch, or that failed before its first."""
    ledger.append(
        TrialStarted(
            trial=name,
            role="search",
            search="s",
            objective="kd",
            parameters={"objective": "kd", **parameters},
            spec={"seed": 1},
            sampled={},
        )
    )
    metrics = {} if accuracy is None else {FIGURE: accuracy, "seconds": 2.0}
    if metrics:
        ledger.append(EpochEnded(trial=name, epoch=1, metrics=metrics))
    ledger.append(
        TrialEnded(
            trial=name,
            status=status,
            reason=None if status == "completed" else "for a reason",
            epochs=len(metrics) // 2,
            best_epoch=1 if metrics else None,
            best=metrics,
            final=metrics,
            checkpoint=None,
        )
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path)
    trial(ledger, "middle", 0.5, temperature=2, depth="one")
    trial(ledger, "lost", None, status="failed", temperature=4)
    trial(ledger, "best", 0.75, temperature=1.5)
    trial(ledger, "late", 0.5, depth=3)
    trial(ledger, "cut short", 0.9, status="pruned", temperature=3)
    return ledger


def test_trials_have_the_ranks_of_the_run_and_those_not_completed_have_none(ledger: Ledger) -> None:
    records = ledger.trials(role=Role.SEARCH)
    assert [(rank, record.trial) for rank, record in ranked(records)] == [
        (1, "best"),
        (2, "late"),
        (3, "middle"),
        (None, "cut short"),
        (None, "lost"),
    ]
    assert [record.trial for rank, record in ranked(records) if rank] == [
        record.trial for record in rank_trials(records)
    ]
    columns, rows = ranking_table(records, top=4)
    assert columns[3] == "accuracy, %"
    assert [row[:4] for row in rows] == [
        ("1", "best", "kd", "75.00"),
        ("2", "late", "kd", "50.00"),
        ("3", "middle", "kd", "50.00"),
        ("", "cut short", "kd", "90.00"),
    ]
    assert rows[3][4] == "pruned: for a reason"


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_all_trials_are_one_flat_table_that_pandas_opens(ledger: Ledger, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "of a run" / f"trials{suffix}"
    assert write_trials(ledger, path) == 5
    found = (pd.read_parquet if suffix == ".parquet" else pd.read_csv)(path)
    assert list(found["trial"]) == ["middle", "lost", "best", "late", "cut short"]
    assert found["rank"].fillna(0).tolist() == [3, 0, 1, 2, 0]
    assert found["params.temperature"].fillna(0).tolist() == [2, 4, 1.5, 0, 3]
    assert found["params.depth"].fillna("").astype(str).tolist() == ["one", "", "", "3", ""]
    assert found[f"metrics.{FIGURE}"].fillna(0).tolist() == [0.5, 0, 0.75, 0.5, 0.9]
    assert found["status"].tolist() == ["completed", "failed", "completed", "completed", "pruned"]


def test_a_file_of_another_kind_is_refused_with_what_to_write(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"found suffix '\.xlsx'; allowed: \.parquet or \.csv"):
        write_trials(ledger, tmp_path / "trials.xlsx")


def test_the_command_shows_a_finished_run_and_writes_its_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = unpack_older_run(tmp_path)
    before = (tmp_path / "out" / "three_trials" / "ledger.jsonl").read_bytes()
    shown = CliRunner().invoke(app, ["show", str(file), "--top", "2", "--trials", str(tmp_path / "t.csv")])
    assert shown.exit_code == 0, shown.output
    assert "trials: the best 2 of 3" in shown.output
    assert "finalist 1 (champion)" in shown.output
    written = pd.read_csv(tmp_path / "t.csv")
    assert sorted(set(written["role"])) == ["baseline", "finalist", "search"]
    assert sorted(written["rank"].dropna()) == [1, 2, 3]
    programs = CliRunner().invoke(app, ["show", str(file), "--json"])
    assert [one["rank"] for one in json.loads(programs.stdout)["trials"] if one["rank"]] != []
    assert (tmp_path / "out" / "three_trials" / "ledger.jsonl").read_bytes() == before


def test_the_command_shows_a_run_that_is_not_over_and_refuses_one_that_never_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = unpack_older_run(tmp_path)
    out = tmp_path / "out" / "three_trials"
    (out / "summary.json").unlink()
    shown = CliRunner().invoke(app, ["show", str(file)])
    assert shown.exit_code == 0, shown.output
    assert f"the run is not over; it goes on with: stillhouse run {file}" in shown.output
    (out / "ledger.jsonl").unlink()
    refused = CliRunner().invoke(app, ["show", str(file)])
    assert isinstance(refused.exception, ConfigError)
    assert "holds no run of three_trials" in str(refused.exception)
    assert not (out / "ledger.jsonl").exists()
