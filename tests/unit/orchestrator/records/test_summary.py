from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.records.costs import StudentCosts
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.places import summary_as_read
from orchestrator.records.selection import group_of
from orchestrator.records.student_figures import control_students, finalist_of
from orchestrator.records.summary import (
    MlflowPlace,
    Summary,
    champion_of,
    read_summary,
    trial_row,
    write_summary,
)
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
        "finalists",
        "champion",
        "mlflow",
        "ledger",
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
        "precision",
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
        "precision": None,
        "selection_accuracy": None,
        "selection_nll": None,
        "selection_ece": None,
        "params": None,
        "size_bytes": None,
        "latency_ms": None,
    }


def test_a_trial_has_its_costs_and_what_its_best_epoch_reached(make_record: MakeRecord) -> None:
    record = make_record("t", 0.9)
    best = {"selection/accuracy": 0.9, "selection/nll": 0.4, "selection/ece": 0.05}
    costs = StudentCosts(params=10.0, size_bytes=40.0, latency_ms=0.1)
    row = trial_row(record.model_copy(update={"best": best}), costs)
    assert (row.selection_accuracy, row.selection_nll, row.selection_ece) == (0.9, 0.4, 0.05)
    assert (row.params, row.size_bytes, row.latency_ms) == (10, 40, 0.1)
    assert not {"selection_agreement", "selection_kl_to_teacher"} & row.plain().keys()


def test_a_trial_with_a_teacher_has_how_near_to_it_its_best_epoch_came(make_record: MakeRecord) -> None:
    best = {"selection/accuracy": 0.9, "selection/agreement": 0.95, "selection/kl_to_teacher": 0.2}
    row = trial_row(make_record("t", 0.9).model_copy(update={"best": best}), None)
    assert (row.selection_agreement, row.selection_kl_to_teacher) == (0.95, 0.2)


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


def test_costs_travel_with_their_percentile_and_device(make_record: MakeRecord) -> None:
    costs = StudentCosts(
        params=10.0, size_bytes=40.0, latency_ms=0.1, latency_p95_ms=0.2, latency_device="Intel Xeon"
    )
    control, group = (group_of([make_record(name, accuracy)]) for name, accuracy in (("b", 0.8), ("f", 0.9)))
    tests = {"b": {"accuracy": 0.8}, "f": {"accuracy": 0.9}}
    finalist = finalist_of(group, [control_students(control, tests, costs)], tests, costs)
    champion = champion_of(finalist, "f", {}, "card.json")
    for told in (finalist.control, finalist, champion):
        assert (told.latency_p95_ms, told.latency_device) == (0.2, "Intel Xeon")
    assert costs.numbers() == {"params": 10.0, "size_bytes": 40.0, "latency_ms": 0.1, "latency_p95_ms": 0.2}


def test_a_summary_of_an_earlier_version_is_read(summary: Summary, tmp_path: Path) -> None:
    plain = summary.plain()
    # Such a version had one control for all finalists, and neither percentiles nor devices of latencies.
    plain["baseline"] = plain["finalists"][0]["control"]
    del plain["baseline"]["hyper_parameters"], plain["baseline"]["recipe"]
    for finalist in plain["finalists"]:
        del finalist["control"], finalist["beside"]
    for students in (plain["baseline"], plain["champion"], *plain["finalists"]):
        del students["latency_p95_ms"], students["latency_device"]
    (tmp_path / "summary.json").write_text(json.dumps(plain))
    wanted = Summary.from_plain(summary_as_read(summary.plain(), tmp_path))
    assert read_summary(tmp_path / "summary.json") == wanted


def test_a_finalist_holds_the_trials_and_figures_of_its_control(summary: Summary) -> None:
    control = summary.plain()["finalists"][1]["control"]
    assert control["trials"] == ["b-0", "b-1", "b-2"]
    assert control["test_accuracies"] == [0.89, 0.91, 0.90]
    assert control["selection_mean"] == pytest.approx(0.91)


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
