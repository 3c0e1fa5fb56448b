from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from orchestrator.records.events import EpochEnded, Event, StageEvent
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.selection import PairedDifference
from orchestrator.records.summary import MemberFigures, Summary
from orchestrator.reports.finished_sections import verdict
from orchestrator.reports.html_report import report_html, write_report
from orchestrator.reports.run_facts import RunFacts

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


def page_of(summary: Summary, records: Sequence[TrialRecord], events: Sequence[Event] = ()) -> str:
    return report_html(RunFacts(summary.experiment, records, events, summary))


def epoch(trial: str, number: int, accuracy: float) -> EpochEnded:
    return EpochEnded(trial=trial, epoch=number, metrics={"selection/accuracy": accuracy})


def test_the_page_is_whole_and_loads_nothing(
    summary: Summary, search_records: list[TrialRecord], tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    figures = {"s1": {"params": 5e6, "size_bytes": 1.0, "latency_ms": 0.5}}
    events: list[Event] = [epoch("f1-0", 1, 0.5), STAGE]
    write_report(path, RunFacts("digits", search_records, events, summary, figures))
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert not [attrs for _, attrs in page.tags if attrs.get("src") or attrs.get("srcset")]
    assert {"link", "script"}.isdisjoint(tag for tag, _ in page.tags)
    assert "default-src 'none'" in text
    assert [attrs["href"] for tag, attrs in page.tags if tag == "a"] == [summary.mlflow.ui_url]
    charts = [attrs["id"] for tag, attrs in page.tags if attrs.get("class") == "chart"]
    assert charts == ["chart-cost", "chart-curves", "chart-search", "chart-slices"]


def test_the_policy_lets_no_script_run_and_no_other_style_count(
    summary: Summary, search_records: list[TrialRecord]
) -> None:
    text = page_of(summary, search_records, [epoch("f1-0", 1, 0.5)])
    (sheet,) = re.findall("<style>(.*?)</style>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in text
    tags = Page(text).tags
    assert "script" not in {tag for tag, _ in tags}
    assert not [attrs for _, attrs in tags if "style" in attrs]
    assert not [name for _, attrs in tags for name in attrs if name.startswith("on")]


def test_ids_of_a_page_are_unique_and_what_refers_to_one_finds_it(
    summary: Summary, search_records: list[TrialRecord]
) -> None:
    figures = {"s1": {"params": 5e6, "size_bytes": 1.0, "latency_ms": 0.5}}
    events = [epoch(f"f1-{seed}", number, 0.5) for seed in range(3) for number in range(1, 9)]
    tags = Page(report_html(RunFacts("digits", search_records, events, summary, figures))).tags
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    refers = {
        found[1]
        for _, attrs in tags
        for name in ("href", "clip-path")
        if (found := re.search("#([^)]+)", attrs.get(name) or "")) and "//" not in (attrs[name] or "")
    }
    assert refers <= set(ids)


def test_the_same_run_gives_the_same_page(summary: Summary, search_records: list[TrialRecord]) -> None:
    events = [epoch("f1-0", 1, 0.5), epoch("f1-0", 2, 0.75)]
    assert page_of(summary, search_records, events) == page_of(summary, search_records, events)


def test_the_page_tells_the_facts(summary: Summary, search_records: list[TrialRecord]) -> None:
    text = Page(page_of(summary, search_records)).text
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
        return Page(page_of(summary.with_overrides(finalists=finalists), search_records)).text

    said = (
        "Over control, recipe 2, which was worse on the selection split, the champion's gain is not shown: "
    )
    assert f"{said}+1.00 [-1.50, +3.50] points." in page(gain)
    assert "is not shown" not in page(champion.test_gain)


def test_the_page_tells_what_a_latency_was_measured_on(
    measured: Summary, search_records: list[TrialRecord]
) -> None:
    text = Page(page_of(measured, search_records)).text
    assert "one image, median; p95 0.180 ms; Intel Xeon" in text
    assert "0.125 (p95 0.180)" in text
    assert "the median and the 95th percentile (p95), on Intel Xeon." in text
    other = measured.finalists[0].with_overrides(latency_device="NVIDIA H200")
    mixed = measured.with_overrides(finalists=[other, *measured.finalists[1:]])
    text = Page(page_of(mixed, search_records)).text
    assert "Intel Xeon: control, finalist 2; NVIDIA H200: finalist 1." in text
    assert "Latencies of different devices do not compare." in text


def test_a_latency_of_an_earlier_version_is_shown_as_before(
    summary: Summary, search_records: list[TrialRecord]
) -> None:
    text = Page(page_of(summary, search_records)).text
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
    attacked = Page(page_of(hostile, records))
    count = [tag for tag, _ in attacked.tags].count
    assert count("img") == 0
    assert count("script") == 0
    assert count("a") == 0
    assert evil in attacked.text


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
    assert words in page_of(shown, [])


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
    text = Page(page_of(together, search_records)).text
    for fact in ("teachers together", "teacher 1", "43.75", "1,234", "teacher 2"):
        assert fact in text
