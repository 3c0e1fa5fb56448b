"""The evidence for objectives: the numbers of a ledger against SciPy's, and the page that shows them."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path

import pytest
from scipy import stats  # type: ignore[import-untyped]

from orchestrator.evidence import Evidence, SearchEvidence, evidence_of
from orchestrator.evidence_page import facts_of, methods_page, read_steps
from orchestrator.ledger import Ledger
from orchestrator.loading import load_experiment
from trainables.errors import StillhouseError

SEEDS = (11, 12, 13, 14)
ACCURACY = {
    "ce": (0.80, 0.82, 0.81, 0.83),
    "kd": (0.84, 0.86, 0.85, 0.87),
    "dist": (0.80, 0.90, 0.79, 0.88),
    "ckd": (0.70, 0.71, 0.72, 0.70),
}
SECONDS = {"ce": 2.0, "kd": 2.2, "dist": 2.4, "ckd": 3.0}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """One finished search of three objectives at their defaults, and one that was never tested."""
    ledger = Ledger(tmp_path)
    ledger.append(
        "stage", stage="teacher", key="t", status="finished", seconds=1.0, result={"params": 174_000}
    )
    tested: dict[str, dict[str, float]] = {"teacher": {"accuracy": 0.9, "ece": 0.02}}
    for name, accuracies in ACCURACY.items():
        role = "baseline" if name == "ce" else "finalist"
        for seed, accuracy in zip(SEEDS, accuracies, strict=True):
            trial = student(ledger, "whole", name, role, seed)
            tested[trial] = {"accuracy": accuracy, "ece": 0.05, "agreement": 0.75}
    ledger.append("stage", stage="test", key="k", status="finished", seconds=1.0, result=tested)
    student(ledger, "half", "kd", "finalist", 11)
    return ledger


def student(ledger: Ledger, search: str, objective: str, role: str, seed: int) -> str:
    trial = f"{search}-{objective}-{seed}"
    ledger.append(
        "trial_started",
        trial=trial,
        role=role,
        search=search,
        objective=objective,
        parameters={} if role == "baseline" else {"objective": objective},
        spec={"seed": seed},
        sampled={},
    )
    metrics = {"selection/accuracy": 0.5, "seconds": SECONDS[objective]}
    ledger.append("epoch", trial=trial, epoch=1, metrics=metrics)
    ledger.append(
        "trial_ended",
        trial=trial,
        status="completed",
        reason=None,
        epochs=1,
        best_epoch=1,
        best=metrics,
        final=metrics,
        checkpoint=None,
    )
    return trial


def of(found: SearchEvidence, objective: str) -> Evidence:
    return next(group for group in (found.control, *found.groups) if group.objective == objective)


def test_means_intervals_and_paired_differences_are_those_of_scipy(ledger: Ledger) -> None:
    (found,) = evidence_of(ledger)
    assert [group.objective for group in found.groups] == ["kd", "dist", "ckd"]
    for name, accuracies in ACCURACY.items():
        mine, values = of(found, name), [100 * accuracy for accuracy in accuracies]
        assert mine.mean == pytest.approx(statistics.fmean(values))
        expected = stats.ttest_1samp(values, 0).confidence_interval()
        assert mine.interval == pytest.approx((expected.low, expected.high))
        for other, difference in (("ce", mine.over_ce), ("kd", mine.over_kd)):
            if name == other:
                assert difference is None
                continue
            assert difference is not None
            rival = [100 * accuracy for accuracy in ACCURACY[other]]
            paired = stats.ttest_rel(values, rival).confidence_interval()
            assert difference.mean == pytest.approx(statistics.fmean(values) - statistics.fmean(rival))
            if name == "kd":  # every seed gains the same, so the interval has no width
                assert (difference.low, difference.high) == pytest.approx((4.0, 4.0))
            else:
                assert (difference.low, difference.high) == pytest.approx((paired.low, paired.high))
        assert mine.epoch_over_ce == pytest.approx(SECONDS[name] / SECONDS["ce"])
        assert (mine.agreement, mine.ece) == pytest.approx((75.0, 5.0))


def test_the_page_says_what_is_significant_what_is_not_and_what_loses_to_kd(ledger: Ledger) -> None:
    steps = {"kd": 1.05, "mlld": 2.06, "zipf": 1.4}
    page = methods_page(evidence_of(ledger), title="T", facts="F.", command="the command", steps=steps)
    said = dict(re.findall(r"^\* ([A-Z][^:\n]*): ([^\n]*)\.$", page, re.MULTILINE))
    assert said["Better than CE"] == "kd"
    assert said["Worse than CE"] == "ckd"
    assert said["Not significantly different from CE"] == "dist"
    assert said["Loses to KD"] == "ckd"
    assert said["Below KD on average, not significantly"] == "dist"
    assert "3 objectives at their papers' defaults" in page
    assert "**+4.00 [+4.00, +4.00]**" in page
    assert "`mlld`, 2.06: the student sees 2 views" in page
    assert "`kd`, 1.05" not in page
    table = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    assert [row[1].strip(" `") for row in table] == ["ce", "kd", "dist", "ckd"]
    assert {len(row) for row in table} == {12}


def test_the_facts_name_teacher_and_student(ledger: Ledger) -> None:
    text = facts_of(load_experiment("digits").config, ledger)
    assert "174,000 parameters, 90.00 % on the test split" in text


def test_a_ledger_without_tested_finalists_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    student(ledger, "half", "kd", "finalist", 11)
    with pytest.raises(StillhouseError, match="no search whose finalists were tested"):
        evidence_of(ledger)


def test_steps_come_from_a_file_of_benchmarks(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    assert read_steps(path) == {}
    path.write_text(
        json.dumps({"objective_step_over_ce.kd": {"value": 1.1}, "kd_step_over_ce": {"value": 1}})
    )
    assert read_steps(path) == {"kd": 1.1}
    path.write_text("[1]")
    with pytest.raises(StillhouseError, match="no file of benchmarks"):
        read_steps(path)
