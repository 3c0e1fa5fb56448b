"""A run without a teacher: summary, table, sentences and report do not speak of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.records.bad_outcomes import bad_outcomes
from orchestrator.records.events import EpochEnded
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.ranked_figures import teachers_test
from orchestrator.records.selection import PairedDifference
from orchestrator.records.summary import Summary, read_summary, write_summary
from orchestrator.records.tables.students_table import COLUMNS, SPEED_UP, students_table
from orchestrator.reports.html_report import report_html
from orchestrator.reports.run_facts import RunFacts

BELOW = PairedDifference(n=3, mean=-0.01, std=None, low=-0.03, high=0.01)


def test_the_document_has_no_teacher_and_is_read_again(without_teacher: Summary, tmp_path: Path) -> None:
    write_summary(tmp_path / "summary.json", without_teacher)
    assert "teacher" not in (tmp_path / "summary.json").read_text()
    assert read_summary(tmp_path / "summary.json").teacher is None


def test_the_table_has_neither_its_row_nor_a_speed_up(without_teacher: Summary) -> None:
    columns, rows = students_table(without_teacher)
    assert columns == tuple(name for name in COLUMNS if name != SPEED_UP)
    assert [row[0] for row in rows] == ["control", "finalist 1 (champion)", "finalist 2"]
    assert {len(row) for row in rows} == {len(columns)}
    assert rows[1][-1] == "temperature 4, kd_weight 0.5"
    assert teachers_test(without_teacher) is None


def test_the_page_does_not_speak_of_one(without_teacher: Summary, search_records: list[TrialRecord]) -> None:
    trial = without_teacher.finalists[0].trials[0]
    metrics = {"selection/accuracy": 0.5, "train/kept": 0.75, "seconds": 2.0}
    events = [EpochEnded(trial=trial, epoch=1, metrics=metrics)]
    page = report_html(RunFacts("digits", search_records, events, without_teacher))
    assert "eacher" not in page
    for head in ("Learning curves", "Samples kept by confidence thresholds", "Where the time went"):
        assert head in page
    charts = [line for line in page.splitlines() if "chart-cost" in line or "chart-curves" in line]
    assert charts
    assert not any("teacher" in line for line in charts)


@pytest.mark.parametrize(("objective", "who"), [("ls", "its objective (ls)"), ("kd", "the teacher")])
def test_who_did_not_help_is_the_teacher_only_where_it_was_heard(
    without_teacher: Summary, objective: str, who: str
) -> None:
    best, *others = without_teacher.finalists
    best = best.with_overrides(objective=objective, test_gain=BELOW)
    told = " ".join(bad_outcomes(without_teacher.with_overrides(finalists=[best, *others])))
    assert f"points: {who} did not help it." in told
    assert f"do not show that {who} helped it." in told


@pytest.mark.parametrize(
    ("searched", "said"),
    [("ce", None), ("zipf", "of another objective was better"), ("kd", "with the teacher was better")],
)
def test_a_champion_that_learns_from_labels_alone(
    without_teacher: Summary, searched: str, said: str | None
) -> None:
    best, *others = without_teacher.finalists
    control = best.control.with_overrides(trials=best.trials)
    best = best.with_overrides(objective="ce", control=control.plain())
    trials = [trial.with_overrides(objective=searched) for trial in without_teacher.trials]
    changed = without_teacher.with_overrides(finalists=[best, *others], trials=trials)
    assert changed.finalists[0].is_own_control
    told = " ".join(bad_outcomes(changed))
    assert (said or "") in told
    assert ("learns from the labels alone" in told) == (said is not None)
