from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.records.events import EpochEnded, Event
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.summary import Summary
from orchestrator.reports.charts.costs import CostPanel, cost_chart, cost_panels
from orchestrator.reports.charts.curves import curves_chart, curves_of
from orchestrator.reports.charts.groups import groups_of
from orchestrator.reports.charts.palette import THEME, control_look, student_look
from orchestrator.reports.charts.parallel_coordinates import (
    ABSENT_HEIGHT,
    MAX_AXES,
    parallel_of,
    search_chart,
)
from orchestrator.reports.charts.svg import axes_of, drawing
from orchestrator.reports.html_report import report_html
from orchestrator.reports.run_facts import RunFacts
from trainables.config import Cost

MakeRecord = Callable[..., TrialRecord]
METRIC = "selection/accuracy"


def epoch(trial: str, number: int, accuracy: float) -> EpochEnded:
    return EpochEnded(trial=trial, epoch=number, metrics={METRIC: accuracy})


def test_curves_average_the_seeds_and_count_a_repeated_epoch_once(summary: Summary) -> None:
    events: list[Event] = [
        epoch("b-0", 1, 0.1),
        epoch("b-0", 1, 0.2),
        epoch("b-0", 2, 0.4),
        epoch("b-1", 2, 0.8),
        epoch("b-1", 1, 0.4),
        epoch("elsewhere", 1, 1.0),
    ]
    facts = RunFacts("digits", [], events, summary)
    (curve,) = curves_of(facts, METRIC, groups_of(facts))
    assert curve.group.name == "control (ce)"
    assert curve.epochs == [1, 2]
    assert curve.means == pytest.approx([30, 60])
    assert curve.stds == pytest.approx([200**0.5, 800**0.5])


def test_a_curve_of_one_seed_has_no_band(summary: Summary) -> None:
    facts = RunFacts("digits", [], [epoch("b-0", 1, 0.5)], summary)
    (curve,) = curves_of(facts, METRIC, groups_of(facts))
    assert curve.stds is None
    chart = curves_chart(facts)
    assert chart is not None
    assert "fill-opacity" not in " ".join(chart.styles.values())


def test_the_table_of_curves_has_the_last_epoch_and_few_rows(summary: Summary) -> None:
    events = [epoch("b-0", number, number / 300) for number in range(1, 300)]
    chart = curves_chart(RunFacts("digits", [], events, summary))
    assert chart is not None
    assert chart.table is not None
    assert len(chart.table.rows) <= 20
    assert list(chart.table.rows[-1]) == ["299", "99.67"]


def test_the_chart_of_costs_shows_the_profiled_trials(
    summary: Summary, search_records: list[TrialRecord]
) -> None:
    figures = {"s1": {"params": 5e6, "size_bytes": 1.0, "latency_ms": 0.5}}
    facts = RunFacts("digits", search_records, [], summary, figures)
    latency, params = cost_panels(facts)
    assert [(point.cost, point.reached) for point in latency.searched] == [(0.5, 95.0)]
    assert [(point.cost, point.reached) for point in params.searched] == [(5e6, 95.0)]
    assert (latency.teacher, params.teacher is None) == (None, False)  # its latency is not known
    chart = cost_chart(facts)
    assert chart is not None
    assert "s1: 95.00 %" in chart.markup


def test_trials_that_none_beats_in_what_the_search_weighed_are_ringed(
    summary: Summary, make_record: MakeRecord
) -> None:
    # Of b and c the one is faster, the other smaller; a beats d in all, and e in all but latency.
    students = {
        "a": (0.90, 300, 2.0),
        "b": (0.80, 200, 1.0),
        "c": (0.80, 100, 3.0),
        "d": (0.85, 400, 2.5),
        "e": (0.85, 350, 1.5),
    }
    figures = {
        name: {"params": float(params), "size_bytes": 1.0, "latency_ms": latency_ms}
        for name, (_, params, latency_ms) in students.items()
    }

    def ringed(*weighed: Cost) -> list[list[tuple[float, int]]]:
        records = [make_record(name, accuracy) for name, (accuracy, _, _) in students.items()]
        told = [
            record.model_copy(update={"best": record.best | {cost.metric: 9.0 for cost in weighed}})
            for record in records
        ]
        facts = RunFacts("digits", told, [], summary, figures)
        chart = cost_chart(facts)
        assert chart is not None
        named = [key.name for key in chart.keys if "unbeaten" in key.name]
        assert set(named) <= {f"unbeaten trials: accuracy, {', '.join(weighed)}"}

        def points(panel: CostPanel) -> list[tuple[float, int]]:
            return sorted((point.cost, round(point.reached)) for point in panel.ringed)

        return [points(panel) for panel in cost_panels(facts)]

    assert ringed(Cost.PARAMS) == [[(2.0, 90), (3.0, 80)], [(100.0, 80), (300.0, 90)]]
    by_latency, by_params = ringed(Cost.PARAMS, Cost.LATENCY_MS)
    assert by_latency == [(1.0, 80), (1.5, 85), (2.0, 90), (3.0, 80)]
    assert by_params == [(100.0, 80), (200.0, 80), (300.0, 90), (350.0, 85)]
    assert ringed() == [[], []]


def test_the_search_chart_leaves_out_what_never_varied(make_record: MakeRecord) -> None:
    records = [
        make_record("a", 0.90, parameters={"lr": 0.01, "width": 8, "temperature": 4.0}),
        make_record("b", 0.92, parameters={"lr": 1.0, "width": 8, "temperature": 2.0}),
        make_record("c", 0.91, parameters={"lr": 0.1, "width": 8}),
    ]
    parallel = parallel_of(RunFacts("digits", records))
    assert parallel is not None
    assert [axis.title for axis in parallel.axes] == ["lr (log)", "temperature", "selection accuracy, %"]
    assert [line.heights for line in parallel.lines] == [
        pytest.approx([0.0, 1.0, 0.0]),
        pytest.approx([0.5, ABSENT_HEIGHT, 0.5]),
        pytest.approx([1.0, 0.0, 1.0]),
    ]


def test_an_axis_is_logarithmic_where_the_domain_is(make_record: MakeRecord) -> None:
    records = [
        make_record("a", 0.90, parameters={"near": 1.0, "far": 1.0}),
        make_record("b", 0.92, parameters={"near": 2.0, "far": 100.0}),
    ]
    parallel = parallel_of(RunFacts("digits", records, log_domains={"near": True, "far": False}))
    assert parallel is not None
    assert [axis.title for axis in parallel.axes][:2] == ["near (log)", "far"]


def test_of_many_parameters_those_are_shown_that_most_trials_have(make_record: MakeRecord) -> None:
    shared = {f"shared{n}": 1.0 for n in range(MAX_AXES)}
    records = [
        make_record("a", 0.90, parameters={"rare": 1.0, **shared}),
        make_record("b", 0.91, parameters={"rare": 2.0, **dict.fromkeys(shared, 2.0)}),
        make_record("c", 0.92, parameters=dict.fromkeys(shared, 3.0)),
    ]
    parallel = parallel_of(RunFacts("digits", records))
    assert parallel is not None
    assert [axis.name for axis in parallel.axes] == [*shared, "selection accuracy, %"]
    assert parallel.left_out == 1
    page = report_html(RunFacts("digits", records))
    assert "1 more parameter, which fewer trials have, has no axis" in page


def test_a_search_of_one_point_has_no_chart(make_record: MakeRecord, summary: Summary) -> None:
    records = [make_record("a", 0.9, parameters={"lr": 0.1})]
    assert search_chart(RunFacts("digits", records)) is None
    assert "No hyper-parameter took two values" in report_html(RunFacts("digits", records, (), summary))


@pytest.mark.parametrize("accuracies", [[0.9], [0.9, 0.9]])
def test_a_search_whose_scores_are_all_equal_has_a_chart_without_them(
    make_record: MakeRecord, accuracies: list[float]
) -> None:
    values: list[dict[str, Any]] = [{"temperature": 1.0, "beta": 2.0}, {"temperature": 4.0}]
    records = [make_record(f"t{n}", accuracy, parameters=values[n]) for n, accuracy in enumerate(accuracies)]
    records += [
        make_record("stopped", 0.5, parameters={"temperature": 2.0, "beta": 8.0}).model_copy(
            update={"status": "pruned"}
        )
    ]
    facts = RunFacts("digits", records)
    parallel = parallel_of(facts)
    assert parallel is not None
    assert [axis.name for axis in parallel.axes] == ["temperature", "beta"]
    assert len(parallel.lines) == len(records)
    assert search_chart(facts) is not None


def test_a_drawing_has_the_colours_of_the_page_and_no_styles_of_its_own(summary: Summary) -> None:
    chart = curves_chart(RunFacts("digits", [], [epoch("b-0", 1, 0.5), epoch("f1-0", 1, 0.6)], summary))
    assert chart is not None
    css = " ".join(chart.styles.values())
    assert not re.search("#[0-9a-f]{3}", css)
    used = set(re.findall(r"var\(--([\w-]+)\)", css))
    assert {"blue", "grey-1"} <= used <= THEME.keys()
    assert "style=" not in chart.markup
    assert "font-family" not in css


def test_names_in_a_drawing_are_no_formulas_and_no_markup() -> None:
    def paint(figure: Any) -> dict[str, list[str]]:
        axes = axes_of(figure, left=40)
        axes.set_title("$x^$ <b>\x01 学")
        axes.scatter([1], [1], gid="point")
        return {"point": ["<i>\x02"]}

    drawn = drawing("odd", '"><script>', (200, 100), paint)
    assert "$x^$ &lt;b&gt;  学" in drawn.markup
    assert "<title>&lt;i&gt; </title>" in drawn.markup
    assert 'aria-label="&quot;&gt;&lt;script&gt;"' in drawn.markup
    assert "<script" not in drawn.markup


def test_hover_texts_that_do_not_match_their_points_are_refused() -> None:
    def paint(figure: Any) -> dict[str, list[str]]:
        axes_of(figure, left=40).scatter([1, 2, 3], [1, 2, 3], gid="points")
        return {"points": ["one", "two"]}

    with pytest.raises(ValueError, match="points has 3 parts and 2 hover texts"):
        drawing("few", "", (200, 100), paint)


def test_no_two_of_twelve_students_look_alike() -> None:
    looks = [student_look(number) for number in range(12)]
    assert len({(look.colour, look.marker, look.dashes) for look in looks}) == 12
    # Six and six are told apart without their colours.
    for six in (looks[:6], looks[6:]):
        assert len({(look.marker, look.dashes) for look in six}) == 6
    assert len({control_look(number).dashes for number in range(3)}) == 3
