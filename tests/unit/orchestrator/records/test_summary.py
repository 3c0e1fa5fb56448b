from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.records.costs import StudentCosts
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.places import summary_as_read
from orchestrator.records.selection import PairedDifference, group_trials
from orchestrator.records.summary import (
    MlflowPlace,
    Summary,
    champion_of,
    finalist_of,
    gain_text,
    read_summary,
    students_of,
    students_table,
    write_summary,
)
from orchestrator.terminal.formatting import percent, short_parameters
from trainables.errors import ConfigError, StillhouseError

MakeRecord = Callable[..., TrialRecord]


def test_the_document_has_its_keys(summary: Summary) -> None:
    plain = summary.plain()
    assert list(plain) == [
        "experiment",
        "out",
        "seconds",
        "teacher",
        "cache",
        "trials",
        "baseline",
        "finalists",
        "champion",
        "mlflow",
    ]
    assert list(plain["champion"]) == [
        "trial_id",
        "objective",
        "hyper_parameters",
        "params",
        "size_bytes",
        "latency_ms",
        "latency_p95_ms",
        "latency_device",
        "selection_accuracy",
        "test_accuracy",
        "exports",
        "model_card",
    ]
    assert plain["trials"][4] == {
        "id": "s5",
        "status": "failed",
        "objective": "kd",
        "hyper_parameters": {"temperature": 99.0},
        "epochs": 5,
        "selection_accuracy": None,
    }


def test_finalists_are_paired_with_the_control_seed_by_seed(summary: Summary) -> None:
    first = summary.finalists[0]
    assert first.trials == ("f1-0", "f1-1", "f1-2")
    assert first.test_accuracies == (0.94, 0.95, 0.93)
    assert first.test_mean == pytest.approx(0.94)
    assert first.test_std == pytest.approx(0.01)
    # Test: 0.94 - 0.89, 0.95 - 0.91, 0.93 - 0.90; t(0.975, 2) = 4.30265
    assert first.test_gain.mean == pytest.approx(0.04)
    assert first.test_gain.std == pytest.approx(0.01)
    assert first.test_gain.low == pytest.approx(0.04 - 4.302653 * 0.01 / 3**0.5, abs=1e-7)
    assert first.selection_gain.mean == pytest.approx(0.04)


def test_the_champion_claims_the_mean_and_not_its_own_seed(summary: Summary) -> None:
    assert summary.champion.trial_id == "f1-1"
    assert summary.champion.selection_accuracy == pytest.approx(0.95)
    assert summary.champion.test_accuracy == pytest.approx(0.94)


def test_a_trial_of_another_group_cannot_be_the_champion(summary: Summary) -> None:
    with pytest.raises(ValueError, match=r"s1 is none of the finalist's: f1-0"):
        champion_of(summary.finalists[0], "s1", {}, "card.json")


def test_a_champion_must_be_a_finalists_seed(summary: Summary) -> None:
    stray = summary.champion.model_copy(update={"trial_id": "s1"})
    with pytest.raises(ValueError, match="champion s1 is a seed of no finalist"):
        summary.with_overrides(champion=stray)


def test_the_document_survives_writing_and_reading(summary: Summary, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "summary.json"
    summary = Summary.from_plain(summary_as_read(summary.plain(), path.parent))
    write_summary(path, summary)
    write_summary(path, summary)
    assert read_summary(path) == summary
    assert (
        json.loads(path.read_text())["finalists"][0]["selection_mean"] == summary.finalists[0].selection_mean
    )
    assert [entry.name for entry in path.parent.iterdir()] == ["summary.json"]


def test_a_summary_that_cannot_be_written_leaves_the_old_one(summary: Summary, tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("here already")
    with pytest.raises(StillhouseError, match=r"cannot write .*summary\.json"):
        write_summary(blocker / "summary.json", summary)
    assert blocker.read_text() == "here already"


def test_reading_names_what_is_missing_or_foreign(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run the experiment first"):
        read_summary(tmp_path / "summary.json")
    (tmp_path / "summary.json").write_text('{"experiment": "x"}')
    with pytest.raises(ConfigError, match="no summary of this version"):
        read_summary(tmp_path / "summary.json")


def test_the_table_shows_teacher_control_and_finalists(summary: Summary) -> None:
    columns, rows = students_table(summary)
    assert all(len(row) == len(columns) for row in rows)
    assert rows[0] == ("teacher", "", "98.00", "97.00", "", "1,000,000", "", "")
    assert rows[1] == ("control", "ce", "91.00 ± 1.00", "90.00 ± 1.00", "", "9,610", "0.125", "")
    assert rows[2] == (
        "finalist 1 (champion)",
        "kd",
        "95.00 ± 1.00",
        "94.00 ± 1.00",
        "+4.00 [+1.52, +6.48]",
        "9,610",
        "0.125",
        "temperature 4, kd_weight 0.5",
    )
    assert rows[3][0] == "finalist 2"


def test_a_latency_has_its_95th_percentile_where_that_is_known(measured: Summary, summary: Summary) -> None:
    columns, rows = students_table(measured)
    place = columns.index("latency, ms")
    assert [row[place] for row in rows] == ["", *["0.125 (p95 0.180)"] * 3]
    assert [row[place] for row in students_table(summary)[1]] == ["", *["0.125"] * 3]


def test_costs_travel_with_their_percentile_and_device(make_record: MakeRecord) -> None:
    costs = StudentCosts(
        params=10.0, size_bytes=40.0, latency_ms=0.1, latency_p95_ms=0.2, latency_device="Intel Xeon"
    )
    (control,) = group_trials([make_record("b", 0.8, objective="ce")])
    (group,) = group_trials([make_record("f", 0.9)])
    tests = {"b": 0.8, "f": 0.9}
    finalist = finalist_of(group, control, tests, costs)
    champion = champion_of(finalist, "f", {}, "card.json")
    for told in (students_of(control, tests, costs), finalist, champion):
        assert (told.latency_p95_ms, told.latency_device) == (0.2, "Intel Xeon")
    assert costs.numbers() == {"params": 10.0, "size_bytes": 40.0, "latency_ms": 0.1, "latency_p95_ms": 0.2}


def test_a_summary_of_an_earlier_version_is_read(summary: Summary, tmp_path: Path) -> None:
    plain = summary.plain()
    for students in (plain["baseline"], plain["champion"], *plain["finalists"]):
        del students["latency_p95_ms"], students["latency_device"]
    (tmp_path / "summary.json").write_text(json.dumps(plain))
    wanted = Summary.from_plain(summary_as_read(summary.plain(), tmp_path))
    assert read_summary(tmp_path / "summary.json") == wanted


def test_one_seed_is_told_as_such() -> None:
    assert percent(0.5) == "50.00"
    assert gain_text(PairedDifference(n=1, mean=-0.012, std=None, low=None, high=None)) == "-1.20 (one seed)"
    assert short_parameters({"lr": 0.0123456, "width": 16, "gate": "own_view"}) == (
        "lr 0.0123, width 16, gate own_view"
    )


def test_passwords_in_addresses_are_not_written_down() -> None:
    place = MlflowPlace(
        tracking_uri="https://me:secret@host/x",
        experiment_id=None,
        parent_run_id=None,
        ui_url="https://me:secret@host/ui",
        registered_model=None,
        version=None,
    )
    assert "secret" not in place.model_dump_json()
