"""The front that a champion was picked from, as the page shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.records.picking.picked import Picked, Placed
from orchestrator.records.summary import Summary
from orchestrator.reports.charts.picked_front import front_chart, front_panels
from orchestrator.reports.html_report import report_html
from orchestrator.reports.run_facts import RunFacts
from tests.synthetic_answers import PARETO, SyntheticAnswers
from tests.synthetic_run import SyntheticRun

HEAD = "The front that was picked from"


def placed(trial: str, front: int | None, **figures: float) -> Placed:
    return Placed(trial=trial, front=front, figures=figures)


def picked(summary: Summary, *pareto: str) -> RunFacts:
    """Finalist 2 is on the front for its latency; of trials one is on the first front."""
    finalists = (
        placed("f1-1", 1, selection_accuracy=0.95, latency_ms=0.5, params=900.0),
        placed("f2-1", 1, selection_accuracy=0.93, latency_ms=0.25, params=900.0),
    )
    trials = (
        placed("s1", 1, selection_accuracy=0.96, latency_ms=0.5, params=900.0),
        placed("s2", 2, selection_accuracy=0.90, latency_ms=0.5, params=900.0),
        placed("s3", None, selection_accuracy=0.99),
    )
    asked = Picked(pareto=pareto, finalists=finalists, trials=trials)
    return RunFacts("digits", [], summary=summary.with_overrides(picked=asked))


def test_finalists_and_the_first_front_of_the_trials_are_shown(summary: Summary) -> None:
    (panel,) = front_panels(picked(summary, "latency_ms", "selection_accuracy"))
    assert (panel.across, panel.up, panel.is_whole) == ("latency_ms", "selection_accuracy", True)
    assert [(group.is_champion, tuple(spot)) for group, spot in panel.finalists] == [
        (True, (0.5, 95.0, True)),
        (False, (0.25, 93.0, True)),
    ]
    assert [tuple(spot) for spot in panel.trials] == [(0.5, 96.0, True)]


def test_three_figures_make_two_panels_beside_the_accuracy(summary: Summary) -> None:
    panels = front_panels(picked(summary, "selection_accuracy", "latency_ms", "params"))
    assert [(panel.across, panel.up) for panel in panels] == [
        ("latency_ms", "selection_accuracy"),
        ("params", "selection_accuracy"),
    ]
    assert not any(panel.is_whole for panel in panels)


def test_a_finalist_without_a_figure_is_in_the_table_alone(summary: Summary) -> None:
    facts = picked(summary, "selection_accuracy", "seconds")
    assert [panel.finalists for panel in front_panels(facts)] == [[]]
    assert front_chart(facts) is None


def test_the_table_has_all_finalists_and_the_first_front_of_the_trials(summary: Summary) -> None:
    chart = front_chart(picked(summary, "selection_accuracy", "latency_ms"))
    assert chart is not None
    assert chart.table is not None
    assert chart.table.columns == ("of", "front", "student", "selection_accuracy, %", "latency_ms")
    assert [row[:3] for row in chart.table.rows] == [
        ("finalists", "1", "f1-1"),
        ("finalists", "1", "f2-1"),
        ("trials, the first front", "1", "s1"),
    ]


def test_the_page_has_the_section_where_a_front_was_asked_for_alone(summary: Summary) -> None:
    assert f"<h2>{HEAD}</h2>" in report_html(picked(summary, "selection_accuracy", "latency_ms"))
    assert HEAD not in report_html(RunFacts("digits", [], summary=summary))
    by_rank = summary.with_overrides(picked=Picked(rank="params"))
    assert HEAD not in report_html(RunFacts("digits", [], summary=by_rank))


def test_a_whole_run_is_drawn_by_what_its_summary_keeps(tmp_path: Path) -> None:
    run = SyntheticRun(trials=30, epochs=4, seeds=2, answers=SyntheticAnswers(images=40))
    facts = run.facts(tmp_path)
    assert facts.summary is not None
    assert facts.summary.picked is not None
    panels = front_panels(facts)
    assert [panel.across for panel in panels] == [*PARETO[1:]]
    first = [each for each in facts.summary.picked.trials if each.front == 1]
    assert [len(panel.trials) for panel in panels] == [len(first)] * 2
    for panel in panels:
        for group, spot in panel.finalists:
            assert spot.across == pytest.approx(group.costs[panel.across])
