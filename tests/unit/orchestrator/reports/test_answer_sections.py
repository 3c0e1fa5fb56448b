"""Reliability, classes and disagreements on the page: against sums by hand, SciPy, and the images."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest  # type: ignore[import-untyped]

from orchestrator.records.kept_answers import answers_file, run_answers
from orchestrator.records.summary import Summary
from orchestrator.reports.charts.answered import answered
from orchestrator.reports.charts.class_accuracy import MOST_DRAWN, class_chart, classes_of, wilson_interval
from orchestrator.reports.charts.reliability import bins_of, reliability_chart
from orchestrator.reports.disagreements import disagreement_counts, disagreements
from orchestrator.reports.html_report import report_html
from orchestrator.reports.run_facts import RunFacts
from tests.synthetic_answers import SyntheticAnswers, own_bins
from trainables.evaluation.answers_file import KeptAnswers, write_answers
from trainables.evaluation.disagreement import kept_answers

HEADS = (
    "How far confidences are right",
    "Accuracy by class",
    "Where champion and teacher disagree most confidently",
)


def facts_with(folder: Path, summary: Summary, some: SyntheticAnswers) -> RunFacts:
    """The champion answers as the network of seed 0, its control as that of seed 1."""
    some.write(folder, ["f1-1", "b-1"])
    return RunFacts("digits", [], summary=summary, answers=run_answers(folder, summary, []))


@pytest.fixture
def facts(tmp_path: Path, summary: Summary) -> RunFacts:
    return facts_with(tmp_path, summary, SyntheticAnswers())


def champion(facts: RunFacts) -> KeptAnswers:
    assert facts.answers.champion is not None
    return facts.answers.champion


def test_the_page_has_all_three_sections_with_their_charts_and_images(facts: RunFacts) -> None:
    page = report_html(facts)
    assert [head for head in HEADS if f"<h2>{head}</h2>" in page] == [*HEADS]
    assert 'id="chart-reliability"' in page
    assert 'id="chart-classes"' in page
    assert page.count("<img ") == 12
    assert "the champion f1-1, and the control b-1" in page


def test_bars_are_the_bins_counted_by_hand_and_the_error_beside_them_is_their_gap(facts: RunFacts) -> None:
    said = SyntheticAnswers().said(0)
    network = answered(facts)[-1]
    bins = bins_of(network)
    by_hand = own_bins(said.confidence_N, said.correct_N)
    assert [(b.images, b.confidence / 100, b.accuracy / 100) for b in bins] == [
        pytest.approx(each, abs=1e-6) for each in by_hand
    ]
    assert all(b.lower <= b.confidence <= b.upper for b in bins)
    ece = sum(n * abs(a - c) for n, c, a in by_hand) / sum(n for n, _, _ in by_hand)
    chart = reliability_chart([network])
    assert chart is not None
    assert f"champion, ece {ece:.4f}" in chart.panels[0].drawing.markup


def test_teacher_control_and_champion_are_told_apart(facts: RunFacts) -> None:
    networks = answered(facts)
    assert [network.name for network in networks] == ["teacher", "control", "champion"]
    assert len({network.look.marker for network in networks}) == 3
    chart = reliability_chart(networks)
    assert chart is not None
    assert chart.table is not None
    assert {row[0] for row in chart.table.rows} == {"teacher", "control", "champion"}


@pytest.mark.parametrize(("right", "count"), [(0, 1), (1, 1), (0, 30), (30, 30), (7, 30), (999, 1000)])
def test_intervals_are_those_of_scipy(right: int, count: int) -> None:
    interval = binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, count) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_every_interval_holds_its_share_so_that_a_bar_can_be_drawn() -> None:
    for count in range(1, 120):
        for right in range(count + 1):
            low, high = wilson_interval(right, count)
            assert 0 <= low <= right / count <= high <= 1


def test_each_class_has_the_share_of_its_images_that_is_right(facts: RunFacts) -> None:
    some = SyntheticAnswers()
    said = [some.said(99, skill=5.0), some.said(1), some.said(0)]
    found = classes_of(champion(facts), answered(facts))
    assert [one.name for one in found] == [f"class {number}" for number in range(10)]
    for number, one in enumerate(found):
        own_N = some.split.labels == number
        assert one.images == int(own_N.sum())
        right = [int((each.answers_N[own_N] == number).sum()) for each in said]
        assert [reached.accuracy for reached in one.reached] == [count / one.images for count in right]


def test_of_many_classes_the_champions_worst_are_drawn(tmp_path: Path, summary: Summary) -> None:
    facts = facts_with(tmp_path, summary, SyntheticAnswers(images=600, classes=60))
    found = classes_of(champion(facts), answered(facts))
    accuracies = [one.reached[-1].accuracy for one in found]
    assert accuracies == sorted(accuracies)
    chart = class_chart(champion(facts), answered(facts))
    assert chart.table is not None
    assert len(chart.table.rows) == 60
    drawn = set(re.findall(r"class \d+(?=<)", chart.panels[0].drawing.markup))
    assert drawn == {one.name for one in found[:MOST_DRAWN]}
    assert "Shown are the 20 of 60 classes on which the champion is worst." in report_html(facts)


def test_a_class_without_images_is_left_out(tmp_path: Path, summary: Summary) -> None:
    some = SyntheticAnswers(images=40, classes=4)
    kept = kept_answers(some.said(0), some.said(1), some.split, (*some.names, "never"))
    write_answers(answers_file(tmp_path, "f1-1"), kept)
    facts = RunFacts("digits", [], summary=summary, answers=run_answers(tmp_path, summary, []))
    assert [one.name for one in classes_of(champion(facts), answered(facts))] == [*some.names]


def test_disagreements_are_counted_and_the_surest_come_first(facts: RunFacts) -> None:
    kept = champion(facts)
    own, taught = SyntheticAnswers().said(0), SyntheticAnswers().said(99, skill=5.0)
    differ = (own.answers_N != taught.answers_N).numpy()
    right = (own.correct_N.numpy()[differ].sum(), taught.correct_N.numpy()[differ].sum())
    counts = disagreement_counts(kept)
    assert f"give {differ.sum()} of 400 test images different classes" in counts
    assert f"the champion is right in {right[0]:.0f} of them, the teacher in {right[1]:.0f}" in counts
    found = disagreements(kept)
    sureness = [min(given.confidence for given in one.given) for one in found]
    least = np.minimum(own.confidence_N.numpy(), taught.confidence_N.numpy())[differ]
    assert sureness == pytest.approx(sorted(least.tolist(), reverse=True)[:12])
    for one in found:
        row = one.image // 2
        assert one.true_class == f"class {int(own.labels_N[row])}"
        assert one.given[0][:2] == ("champion", f"class {int(own.answers_N[row])}")
        assert one.given[1].is_right == bool(taught.correct_N[row])


def test_images_on_the_page_are_those_of_the_test_split(facts: RunFacts) -> None:
    first = disagreements(champion(facts))[0]
    found = re.search(r'<img[^>]* alt="([^"]*)"[^>]* src="data:image/png;base64,([^"]*)"', report_html(facts))
    assert found is not None
    assert found[1] == f"Test image {first.image}, of class {first.true_class}"
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(found[2]))))
    (expected,) = SyntheticAnswers().split.images[torch.tensor([first.image // 2])].permute(0, 2, 3, 1)
    assert pixels.tolist() == expected.tolist()


def test_grey_images_are_shown_as_grey_ones(tmp_path: Path, summary: Summary) -> None:
    page = report_html(facts_with(tmp_path, summary, SyntheticAnswers(channels=1)))
    found = re.search(r"base64,([^\"]*)\"", page)
    assert found is not None
    assert Image.open(io.BytesIO(base64.b64decode(found[1]))).mode == "L"


def test_where_images_cannot_be_looked_at_their_answers_are_told(tmp_path: Path, summary: Summary) -> None:
    page = report_html(facts_with(tmp_path, summary, SyntheticAnswers(channels=2)))
    assert page.count("<img ") == 0
    assert page.count("Test image ") == 12
    assert "neither grey nor coloured, so none is shown" in page


def test_two_that_always_agree_have_no_images(tmp_path: Path, summary: Summary) -> None:
    some = SyntheticAnswers(images=40, classes=4)
    same = kept_answers(some.said(0), some.said(0), some.split, some.names)
    write_answers(answers_file(tmp_path, "f1-1"), same)
    page = report_html(RunFacts("digits", [], summary=summary, answers=run_answers(tmp_path, summary, [])))
    assert "Champion and teacher give all 40 test images the same class." in page
    assert "<img " not in page


def test_without_a_teacher_the_other_sections_do_without_it(tmp_path: Path, without_teacher: Summary) -> None:
    page = report_html(facts_with(tmp_path, without_teacher, SyntheticAnswers(hears_teacher=False)))
    assert [head for head in HEADS if f"<h2>{head}</h2>" in page] == [*HEADS[:2]]
    assert "teacher" not in page.lower()


def test_of_a_run_without_kept_answers_the_page_says_why_they_are_missing(
    tmp_path: Path, summary: Summary
) -> None:
    page = report_html(RunFacts("digits", [], summary=summary, answers=run_answers(tmp_path, summary, [])))
    assert "answers/f1-1.npz is missing: an earlier version tested this student" in page
    assert "So the page has no reliability diagram" in page
    assert 'id="chart-reliability"' not in page


def test_names_of_classes_cannot_become_markup(facts: RunFacts) -> None:
    evil = "<script>alert(1)</script>"
    kept = replace(champion(facts), classes=(evil,) * 10)
    page = report_html(replace(facts, answers=replace(facts.answers, champion=kept)))
    assert evil not in page
    assert "&lt;script&gt;" in page
