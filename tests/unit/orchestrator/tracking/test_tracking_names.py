"""What MLflow is shown: names, figures, parameters, links, and the meaning of ledger events."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from orchestrator.records.events import EpochEnded, FiguresAdded, StageEvent, TrialEnded, TrialStarted
from orchestrator.records.ledger import Ledger
from orchestrator.tracking.changes import RUNNING, RunChange
from orchestrator.tracking.cursor import CursorFile, TrackingCursor
from orchestrator.tracking.names import (
    flat_params,
    mlflow_key,
    param_text,
    rounded,
    run_name,
    summary_figures,
)
from orchestrator.tracking.parent import ParentFacts
from orchestrator.tracking.projection import KILLED, Projection
from orchestrator.tracking.views import filtered_runs_url, ranked_runs_url
from trainables.config import Role


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.987654321, 0.98765),
        (123456.789, 123460.0),
        (1.23456789e-7, 1.2346e-7),
        (-0.5, -0.5),
        (270_410, 270_410),
        (math.inf, math.inf),
    ],
)
def test_figures_keep_five_digits_and_whole_numbers_all(value: float, shown: float) -> None:
    assert rounded(value) == shown


def test_a_figure_that_is_no_number_stays_so() -> None:
    assert math.isnan(rounded(math.nan))


def test_a_trial_is_named_by_its_place_and_objective() -> None:
    assert run_name("kd-c8f4e6ad2b42", Role.SEARCH, "kd", 3) == "0003 kd"


def test_finalists_and_controls_are_named_by_their_id() -> None:
    assert run_name("dkd-9edf90dca058-seed2", Role.FINALIST, "dkd", 9) == "dkd-9edf90dca058-seed2"


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("selection/accuracy", "selection/accuracy"),
        ("acc@1 (T=4)", "acc_1 _T_4_"),
        ("a//b", "a/_/b"),
        ("../x", "__/x"),
        ("μ", "_"),
    ],
)
def test_keys_hold_only_what_mlflow_takes(name: str, key: str) -> None:
    assert mlflow_key(name) == key


def test_a_long_parameter_is_cut_to_what_mlflow_holds() -> None:
    text = param_text("x" * 7000)
    assert len(text) == 6000
    assert text.endswith("…")


def test_nested_configuration_becomes_flat_parameters() -> None:
    config = {"data": {"name": "digits", "root": None, "mean": [0.5]}, "seed": 0, "download": False}
    assert flat_params(config) == {
        "data.name": "digits",
        "data.mean": "[0.5]",
        "seed": "0",
        "download": "false",
    }


def test_the_parent_has_the_constants_only() -> None:
    facts = ParentFacts(
        "digits",
        {"student": {"name": "mlp", "width": 8}, "training": {"lr": 0.1}},
        searched={"student.width", "temperature"},
        constants={"teacher": "3f2a"},
    )
    assert facts.params() == {"student.name": "mlp", "training.lr": "0.1", "teacher": "3f2a"}


def test_a_password_in_the_tracking_uri_reaches_neither_parameters_nor_document() -> None:
    uri = "https://me:secret@host:8443/mlflow"
    facts = ParentFacts("digits", {"record": {"tracking_uri": uri, "experiment_name": None}})
    assert facts.params() == {"record.tracking_uri": "https://host:8443/mlflow"}
    assert facts.document()["record"]["tracking_uri"] == "https://host:8443/mlflow"
    assert "secret" not in ranked_runs_url(uri, "1")


def test_the_summary_has_the_best_epoch_under_short_names_and_the_final_accuracy() -> None:
    best = {
        "selection/accuracy": 0.9123456,
        "selection/nll": 0.31,
        "selection/agreement": 0.95,
        "selection/kl_to_teacher": 0.1234567,
        "train/loss": 1,
    }
    figures = summary_figures(best, {"selection/accuracy": 0.9}, epochs=20, best_epoch=17)
    expected = {"acc": 0.91235, "acc_final": 0.9, "agree": 0.95, "kl_to_teacher": 0.12346, "nll": 0.31}
    expected |= {"epoch_best": 17, "epochs": 20}
    assert figures == expected


def test_a_student_that_broke_at_once_has_no_accuracy() -> None:
    assert summary_figures({}, {}, epochs=0, best_epoch=None) == {"epochs": 0}


def test_links_lead_to_the_runs_of_the_experiment() -> None:
    assert ranked_runs_url("http://127.0.0.1:5000/", "7") == (
        "http://127.0.0.1:5000/#/experiments/7/runs?viewStateShareKey=best&workflowType=machine_learning"
    )
    assert filtered_runs_url("http://h", "7").startswith(
        "http://h/#/experiments/7/runs?searchFilter=tags.kind%20%21%3D%20%27experiment%27%20and%20tags.kind"
    )


def started(ledger: Ledger, trial: str, **parameters: Any) -> None:
    ledger.append(
        TrialStarted(
            trial=trial,
            role="search",
            search="s",
            objective="kd",
            parameters=parameters,
            spec={"seed": 1},
        )
    )


def ended(ledger: Ledger, trial: str, status: str, reason: str | None = None) -> None:
    ledger.append(
        TrialEnded(
            trial=trial,
            status=status,
            reason=reason,
            epochs=1,
            best_epoch=1,
            best={"selection/accuracy": 0.5},
            final={"selection/accuracy": 0.5},
            checkpoint=None,
        )
    )


def only(changes: list[RunChange]) -> RunChange:
    assert len(changes) == 1
    return changes[0]


@pytest.mark.parametrize(
    ("status", "shown"), [("completed", "FINISHED"), ("pruned", "KILLED"), ("failed", "FAILED")]
)
def test_only_completed_students_are_finished(tmp_path: Path, status: str, shown: str) -> None:
    ledger = Ledger(tmp_path)
    started(ledger, "t-1")
    ended(ledger, "t-1", status, "why")
    change = only(Projection().fold(ledger.events()))
    assert change.state is not None
    assert change.state.status == shown
    assert (change.tags["outcome"], change.tags["reason"]) == (status, "why")


def test_an_epoch_that_a_resumed_trial_repeats_is_left_out(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    started(ledger, "t-1")
    for epoch in (1, 2, 3, 2, 3, 4):
        ledger.append(EpochEnded(trial="t-1", epoch=epoch, metrics={"train/loss": 1.0 / epoch}))
    change = only(Projection().fold(ledger.events()))
    assert [point.step for point in change.points] == [1, 2, 3, 4]


def test_an_interrupted_trial_is_killed_and_its_next_epoch_revives_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    projection = Projection()
    started(ledger, "t-1")
    last = ledger.append(EpochEnded(trial="t-1", epoch=1, metrics={}))
    projection.fold(ledger.events())
    killed = only(projection.interrupt())
    assert killed.state == (KILLED, last.time_ms)
    assert projection.interrupt() == []
    event = ledger.append(EpochEnded(trial="t-1", epoch=2, metrics={"train/loss": 1.0}))
    revived = only(projection.fold([event]))
    assert revived.state == (RUNNING, None)
    assert revived.tags["outcome"] == "running"


def test_a_late_epoch_does_not_revive_a_pruned_trial(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    projection = Projection()
    started(ledger, "t-1")
    ended(ledger, "t-1", "pruned")
    projection.fold(ledger.events())
    late = ledger.append(EpochEnded(trial="t-1", epoch=2, metrics={"train/loss": 1.0}))
    assert only(projection.fold([late])).state is None


def test_infinite_losses_become_not_a_number(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    started(ledger, "t-1")
    ledger.append(EpochEnded(trial="t-1", epoch=1, metrics={"train/loss": math.inf}))
    (point,) = only(Projection().fold(ledger.events())).points
    assert math.isnan(point.value)


def test_stage_times_go_to_the_parent(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(StageEvent(stage="cache", key="k", status="started", seconds=None, result=None))
    ledger.append(StageEvent(stage="cache", key="k", status="finished", seconds=12.3456789, result={}))
    change = only(Projection().fold(ledger.events()))
    assert change.trial is None
    assert [(point.key, point.value) for point in change.points] == [("seconds/cache", 12.346)]
    assert change.tags == {"stage": "cache finished"}


def test_figures_of_an_unknown_trial_are_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(FiguresAdded(trial="ghost", figures={"params": 1}))
    assert Projection().fold(ledger.events()) == []
    assert "'ghost', a trial that never started" in caplog.text


def test_a_latency_reaches_mlflow_with_its_percentile_and_its_device(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    started(ledger, "t-1")
    figures = {"latency_ms": 0.125, "latency_p95_ms": 0.18}
    ledger.append(FiguresAdded(trial="t-1", figures=figures, latency_device="Intel Xeon"))
    change = only(Projection().fold(ledger.events()))
    assert {point.key: point.value for point in change.figures} == figures
    assert change.tags["latency_device"] == "Intel Xeon"


def test_a_gain_reaches_mlflow_with_the_name_of_the_student_that_it_is_over(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    started(ledger, "t-1")
    ledger.append(FiguresAdded(trial="t-1", figures={"gain_over_control": 0.04}, control="ce-1-seed0"))
    change = only(Projection().fold(ledger.events()))
    assert {point.key: point.value for point in change.figures} == {"gain_over_control": 0.04}
    assert change.tags["control"] == "ce-1-seed0"


def test_the_champions_run_is_marked_and_named_and_one_that_is_it_no_more_gets_its_name_back(
    tmp_path: Path,
) -> None:
    ledger = Ledger(tmp_path)
    started(ledger, "t-1")
    ledger.append(FiguresAdded(trial="t-1", figures={}, champion=True))
    projection = Projection()
    marked = only(projection.fold(ledger.events())).tags
    own = projection.start_of("t-1").name
    assert (marked["champion"], marked["mlflow.runName"]) == ("champion", f"★ {own}")
    ledger.append(FiguresAdded(trial="t-1", figures={}, champion=False))
    again = only(Projection().fold(ledger.events())).tags
    assert (again["champion"], again["mlflow.runName"]) == ("", own)


def test_figures_of_an_earlier_version_bring_neither_device_nor_control(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    started(ledger, "t-1")
    ledger.append(FiguresAdded(trial="t-1", figures={"latency_ms": 0.125}))
    tags = only(Projection().fold(ledger.events())).tags
    assert not {"latency_device", "control"} & tags.keys()


def test_progress_is_kept_apart_for_each_store_and_experiment(tmp_path: Path) -> None:
    progress = TrackingCursor(ledger="l", experiment_id="1", parent_run_id="p", cursor=5, runs={"t-1": "r"})
    CursorFile(tmp_path, "sqlite:////a.db", "one").save(progress)
    CursorFile(tmp_path, "sqlite:////a.db", "two").save(progress.with_overrides(cursor=6))
    assert CursorFile(tmp_path, "sqlite:////a.db", "one").load() == progress
    assert CursorFile(tmp_path, "sqlite:////b.db", "one").load() is None


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 1, "stores": {"u e": {"cursor": "x"}}}'])
def test_a_damaged_progress_file_counts_as_absent(tmp_path: Path, text: str) -> None:
    (tmp_path / "mlflow.json").write_text(text)
    assert CursorFile(tmp_path, "u", "e").load() is None
