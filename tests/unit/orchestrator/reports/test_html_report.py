from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from orchestrator.records.events import EpochEnded, StageEvent
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.selection import PairedDifference
from orchestrator.records.summary import MemberFigures, Summary
from orchestrator.reports.charts import cost_chart, curves_chart
from orchestrator.reports.html_report import report_html, verdict, write_report
from orchestrator.reports.parallel_coordinates import search_chart
from trainables.config import Cost

MakeRecord = Callable[..., TrialRecord]
STAGE = StageEvent(stage="search", key="k", status="started")


class Page(HTMLParser):
    """Tags, attributes and text of a page, scripts and styles apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def epoch(trial: str, number: int, accuracy: float) -> EpochEnded:
    return EpochEnded(trial=trial, epoch=number, metrics={"selection/accuracy": accuracy})


def test_the_page_is_whole_and_loads_nothing(
    summary: Summary, search_records: list[TrialRecord], tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    write_report(path, summary, search_records, [epoch("f1-0", 1, 0.5), STAGE])
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert not [attrs for _, attrs in page.tags if attrs.get("src") or attrs.get("srcset")]
    assert "link" not in [tag for tag, _ in page.tags]
    assert "default-src 'none'" in text
    assert [attrs["href"] for tag, attrs in page.tags if tag == "a"] == [summary.mlflow.ui_url]
    charts = [attrs["id"] for tag, attrs in page.tags if attrs.get("class") == "plotly-graph-div"]
    assert charts == ["chart-cost", "chart-curves", "chart-search"]


def test_the_page_tells_the_facts(summary: Summary, search_records: list[TrialRecord]) -> None:
    text = Page(report_html(summary, search_records, [])).text
    for fact in (
        "95.00 ± 1.00",
        "94.00 %",
        "+4.00 points",
        "95 % interval +1.52 to +6.48",
        "5 trials: 3 completed, 1 pruned, 1 failed.",
        "by 6 students of 2 finalists, 3 students of 1 control, and the teacher",
        "Gain over control (CE)",
        "A gain is over the finalist's own control",
        "differences to the finalist's own control with the same seeds",
        "finalist 1 scored 95.00 % in the search",
        "36,000",
        "1.5e-06",
        "stillhouse-digits version 3",
    ):
        assert fact in text


def test_the_verdict_names_another_recipe_of_the_control_over_which_no_gain_is_shown(
    summary: Summary, search_records: list[TrialRecord]
) -> None:
    champion = summary.finalists[0]
    trials = ["o-0", "o-1", "o-2"]
    other = {"control": champion.control.with_overrides(trials=trials), "selection_gain": champion.test_gain}
    gain = PairedDifference(n=3, mean=0.01, std=0.01, low=-0.015, high=0.035)

    def page(test_gain: PairedDifference) -> str:
        beside = [{**other, "test_gain": test_gain}]
        finalists = [champion.with_overrides(beside=beside), *summary.finalists[1:]]
        return Page(report_html(summary.with_overrides(finalists=finalists), search_records, [])).text

    said = (
        "Over control, recipe 2, which was worse on the selection split, the champion's gain is not shown: "
    )
    assert f"{said}+1.00 [-1.50, +3.50] points." in page(gain)
    assert "is not shown" not in page(champion.test_gain)


def test_the_page_tells_what_a_latency_was_measured_on(
    measured: Summary, search_records: list[TrialRecord]
) -> None:
    text = Page(report_html(measured, search_records, [])).text
    assert "one image, median; p95 0.180 ms; Intel Xeon" in text
    assert "0.125 (p95 0.180)" in text
    assert "the median and the 95th percentile (p95), on Intel Xeon." in text
    other = measured.finalists[0].with_overrides(latency_device="NVIDIA H200")
    mixed = measured.with_overrides(finalists=[other, *measured.finalists[1:]])
    text = Page(report_html(mixed, search_records, [])).text
    assert "Intel Xeon: control, finalist 2; NVIDIA H200: finalist 1." in text
    assert "Latencies of different devices do not compare." in text


def test_a_latency_of_an_earlier_version_is_shown_as_before(
    summary: Summary, search_records: list[TrialRecord]
) -> None:
    text = Page(report_html(summary, search_records, [])).text
    assert "one image, median" in text
    assert "p95" not in text


def test_words_of_the_user_cannot_become_markup(summary: Summary, make_record: MakeRecord) -> None:
    evil = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
    finalist = summary.finalists[0].model_copy(update={"objective": evil, "hyper_parameters": {evil: evil}})
    hostile = summary.model_copy(
        update={
            "experiment": evil,
            "finalists": (finalist, *summary.finalists[1:]),
            "champion": summary.champion.model_copy(update={"objective": evil, "model_card": evil}),
            "mlflow": summary.mlflow.model_copy(update={"ui_url": "javascript:alert(3)"}),
        }
    )
    records = [make_record(f"t{i}", 0.9 + i / 100, parameters={evil: f"{evil}{i}"}) for i in range(3)]
    plain, attacked = Page(report_html(summary, records, [])), Page(report_html(hostile, records, []))
    count = [tag for tag, _ in attacked.tags].count
    assert count("img") == 0
    assert count("script") == [tag for tag, _ in plain.tags].count("script")
    assert count("a") == 0
    assert evil in attacked.text


def test_curves_average_the_seeds_and_count_a_repeated_epoch_once(summary: Summary) -> None:
    events = [
        epoch("b-0", 1, 0.1),
        epoch("b-0", 1, 0.2),
        epoch("b-0", 2, 0.4),
        epoch("b-1", 2, 0.8),
        epoch("b-1", 1, 0.4),
        epoch("elsewhere", 1, 1.0),
    ]
    lines = curves_chart(summary, events).data
    assert [list(line.x) for line in lines] == [[1, 2]] * 3
    assert [list(line.y) for line in lines] == [pytest.approx(y) for y in ([20, 40], [40, 80], [30, 60])]
    assert [line.showlegend for line in lines] == [False, False, True]


def test_the_chart_of_costs_shows_the_profiled_trials(
    summary: Summary, search_records: list[TrialRecord]
) -> None:
    figures = {"s1": {"params": 5e6, "size_bytes": 1.0, "latency_ms": 0.5}}
    chart = cost_chart(summary, search_records, figures)
    trials = [t for t in chart.data if t.name == "trials of the search (one seed)"]
    assert [(list(t.x), list(t.y)) for t in trials] == [([0.5], [95.0]), ([5e6], [95.0])]
    assert chart.layout.xaxis2.type == "log"
    assert sum(t.name == "teacher" for t in chart.data) == 1  # its latency is not known


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

    def ringed(*weighed: Cost) -> list[tuple[list[float], list[int]]]:
        records = [make_record(name, accuracy) for name, (accuracy, _, _) in students.items()]
        told = [
            record.model_copy(update={"best": record.best | {cost.metric: 9.0 for cost in weighed}})
            for record in records
        ]
        traces = [t for t in cost_chart(summary, told, figures).data if "unbeaten" in (t.name or "")]
        assert {t.name for t in traces} <= {f"unbeaten trials: accuracy, {', '.join(weighed)}"}
        return [(list(t.x), [round(y) for y in t.y]) for t in traces]

    assert ringed(Cost.PARAMS) == [([2.0, 3.0], [90, 80]), ([100.0, 300.0], [80, 90])]
    by_latency, by_params = ringed(Cost.PARAMS, Cost.LATENCY_MS)
    assert by_latency == ([1.0, 1.5, 2.0, 3.0], [80, 85, 90, 80])
    assert by_params == ([100.0, 200.0, 300.0, 350.0], [80, 80, 90, 85])
    assert not ringed()


def test_the_search_chart_leaves_out_what_never_varied(make_record: MakeRecord) -> None:
    records = [
        make_record("a", 0.90, parameters={"lr": 0.01, "width": 8, "temperature": 4.0}),
        make_record("b", 0.92, parameters={"lr": 1.0, "width": 8, "temperature": 2.0}),
        make_record("c", 0.91, parameters={"lr": 0.1, "width": 8}),
    ]
    chart = search_chart(records)
    assert chart is not None
    titles = [note.text for note in chart.layout.annotations if note.text.startswith("<b>")]
    assert titles == ["<b>lr <br>(log)</b>", "<b>temperature</b>", "<b>selection <br>accuracy, <br>%</b>"]
    assert [list(line.y) for line in chart.data] == [
        pytest.approx([0.0, 1.0, 0.0]),
        pytest.approx([0.5, -0.12, 0.5]),
        pytest.approx([1.0, 0.0, 1.0]),
    ]


def test_a_search_of_one_point_has_no_chart(make_record: MakeRecord, summary: Summary) -> None:
    records = [make_record("a", 0.9, parameters={"lr": 0.1})]
    assert search_chart(records) is None
    assert "No hyper-parameter took two values" in report_html(summary, records, [])


@pytest.mark.parametrize(
    ("mean", "low", "high", "words"),
    [
        (0.02, 0.01, 0.03, "holds over 3 seeds"),
        (0.01, -0.01, 0.03, "holds zero"),
        (-0.02, -0.03, -0.01, "is below its control (control) on the test split, by 2.00 points"),
        (0.01, None, None, "One seed has no spread"),
    ],
)
def test_the_verdict_follows_the_interval(
    summary: Summary, mean: float, low: float | None, high: float | None, words: str
) -> None:
    gain = PairedDifference(n=3, mean=mean, std=None, low=low, high=high)
    best = summary.finalists[0].with_overrides(test_gain=gain)
    shown = summary.with_overrides(finalists=(best, *summary.finalists[1:]))
    assert words in verdict(shown)
    assert words in report_html(shown, [], [])


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
    chart = search_chart(records)
    assert chart is not None
    assert len(chart.data) == len(records)


def test_of_several_teachers_the_page_tells_each_and_all_together(
    summary: Summary, search_records: list[TrialRecord]
) -> None:
    members = (
        MemberFigures(share=0.75, params=1234, selection_accuracy=0.5, test_accuracy=0.4375),
        MemberFigures(share=0.25, params=None, selection_accuracy=0.25, test_accuracy=None),
    )
    assert summary.teacher is not None
    teacher = summary.teacher.model_copy(update={"members": members})
    together = summary.model_copy(update={"teacher": teacher})
    text = Page(report_html(together, search_records, [])).text
    for fact in ("teachers together", "teacher 1", "43.75", "1,234", "teacher 2"):
        assert fact in text
