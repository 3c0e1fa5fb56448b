"""What the sections compute: timeline, what stopping saved, importance, kept samples, slices, reasons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import MeanDecreaseImpurityImportanceEvaluator, get_param_importances

from orchestrator.records.events import EpochEnded, Event, StageEvent
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.picking.picked import Picked
from orchestrator.records.summary import Summary
from orchestrator.reports.charts.kept_fractions import kept_chart, kept_curves
from orchestrator.reports.charts.slices import MOST_PANELS, slice_axes, slices_chart
from orchestrator.reports.charts.timeline_bars import timeline_chart
from orchestrator.reports.html_report import report_html
from orchestrator.reports.importance import (
    CHANCE,
    LEAST_FOR_TOP,
    LEAST_TRIALS,
    MOST_DRAWN,
    RESAMPLES,
    TREES,
    forest_shares,
    importances,
)
from orchestrator.reports.run_facts import RunFacts
from orchestrator.reports.timeline import (
    kind_of,
    saved_by_stopping,
    saved_text,
    stage_spans,
    time_rows,
    training_spans,
)
from orchestrator.reports.why_champion import why_champion
from tests.synthetic_run import SyntheticRun

MakeRecord = Callable[..., TrialRecord]


def told(trial: str, number: int, end_s: float, seconds: float, **metrics: float) -> EpochEnded:
    return EpochEnded(
        trial=trial, epoch=number, time_ms=int(1000 * end_s), metrics={"seconds": seconds, **metrics}
    )


def in_training(make_record: MakeRecord, events: Sequence[Event], *trials: str) -> RunFacts:
    began = StageEvent(stage="search", key="k", status="started")
    return RunFacts("digits", [make_record(trial, 0.9) for trial in trials], [began, *events])


def test_students_that_are_trained_at_once_have_rows_of_their_own(make_record: MakeRecord) -> None:
    events = [told("a", 1, 10, 10), told("b", 1, 12, 10), told("a", 2, 20, 10), told("c", 1, 25, 5)]
    spans = training_spans(in_training(make_record, events, "a", "b", "c"))
    assert [(s.record.trial, s.start_s, s.end_s, s.epochs, s.row) for s in spans] == [
        ("a", 0, 20, 2, 0),
        ("b", 2, 12, 1, 1),
        ("c", 20, 25, 1, 0),
    ]


def test_a_student_that_paused_gave_its_row_to_another(make_record: MakeRecord) -> None:
    events = [told("a", 1, 10, 10), told("b", 1, 40, 30), told("a", 2, 50, 10)]
    spans = training_spans(in_training(make_record, events, "a", "b"))
    assert [(s.record.trial, s.start_s, s.end_s, s.row) for s in spans] == [
        ("a", 0, 10, 0),
        ("b", 10, 40, 0),
        ("a", 40, 50, 0),
    ]


def test_an_epoch_without_its_seconds_lasts_since_the_one_before(make_record: MakeRecord) -> None:
    events = [EpochEnded(trial="a", epoch=n, time_ms=4000 * n, metrics={}) for n in (1, 2)]
    (span,) = training_spans(in_training(make_record, events, "a"))
    assert (span.start_s, span.end_s, span.epochs) == (0, 8, 2)


def test_a_run_has_as_many_rows_as_slots(tmp_path: Path) -> None:
    facts = SyntheticRun(trials=20, epochs=4, slots=3, is_over=False).facts(tmp_path)
    spans = training_spans(facts)
    assert {span.row for span in spans} == {0, 1, 2}
    rows = time_rows(spans)
    assert sum(int(row[2]) for row in rows) == sum(isinstance(e, EpochEnded) for e in facts.events)


def test_stages_last_from_their_start_to_their_end() -> None:
    def stage(name: str, status: Any, at_s: float) -> StageEvent:
        return StageEvent(stage=name, key="k", status=status, time_ms=int(1000 * at_s))

    events: list[Event] = [
        stage("teacher", "started", 0),
        stage("teacher", "interrupted", 5),
        stage("teacher", "started", 100),
        stage("teacher", "finished", 107),
        stage("search", "started", 110),
        told("a", 1, 130, 10),
    ]
    spans = stage_spans(RunFacts("digits", [], events))
    assert [tuple(span) for span in spans] == [("teacher", 0, 5), ("teacher", 100, 107), ("search", 110, 130)]


def test_what_stopping_saved_is_the_rest_of_the_full_budget(make_record: MakeRecord) -> None:
    spec = {"seed": 0, "training": {"epochs": 10}}

    def trial(name: str, status: str, epochs: int) -> TrialRecord:
        record = make_record(name, 0.5, status=status, epochs=epochs)
        return record.model_copy(update={"spec": spec, "seconds": 3.0 * epochs})

    records = [trial("a", "completed", 10), trial("b", "pruned", 2), trial("c", "failed", 1)]
    saved = saved_by_stopping(records)
    assert saved is not None
    assert tuple(saved) == (1, 8, 20, 24.0)
    assert "8 of 20 epochs (40 %) were not trained" in saved_text(records)
    assert saved_by_stopping(records[:1]) is None


def test_the_timeline_tells_kinds_apart(tmp_path: Path) -> None:
    facts = SyntheticRun(trials=30, epochs=4, seeds=2, finalists=1).facts(tmp_path)
    kinds = {kind_of(span.record) for span in training_spans(facts)}
    assert kinds == {"completed", "pruned", "finalist", "control"}
    chart = timeline_chart(facts)
    assert chart is not None
    assert len(chart.keys) == 4
    assert timeline_chart(RunFacts("digits", [])) is None


def by_temperature(make_record: MakeRecord, count: int) -> list[TrialRecord]:
    """The temperature decides alone; the weight does nothing."""
    return [
        make_record(
            f"t{number}",
            0.5 + 0.3 * (number % 10) / 10,
            parameters={"temperature": 1.0 + number % 10, "kd_weight": float(number * 7 % count)},
        )
        for number in range(count)
    ]


def test_what_decides_is_the_most_important_and_far_above_chance(make_record: MakeRecord) -> None:
    (found,) = importances(RunFacts("digits", by_temperature(make_record, LEAST_TRIALS + 10)))
    shares = {share.name: share for share in found.shares}
    assert found.shares[0].name == "temperature"
    assert shares["temperature"].mean > 0.8
    assert max(shares["kd_weight"].mean, shares[CHANCE].mean) < 0.1
    assert sum(share.mean for share in found.shares) == pytest.approx(1)
    assert found.shares[0].top is None


def test_too_few_trials_have_no_importance(make_record: MakeRecord) -> None:
    assert importances(RunFacts("digits", by_temperature(make_record, LEAST_TRIALS - 1))) == []
    alike = [
        make_record(f"t{number}", 0.5, parameters={"temperature": float(number)}) for number in range(30)
    ]
    assert importances(RunFacts("digits", alike)) == []


def test_shares_of_a_forest_are_those_of_optuna() -> None:
    draws = np.random.default_rng(1)
    kinds, heats = draws.integers(3, size=60), draws.uniform(1, 8, size=60)
    scores = 0.1 * kinds + 0.02 * heats + draws.normal(0, 0.01, size=60)
    space: dict[str, BaseDistribution] = {
        "heat": FloatDistribution(1, 8),
        "kind": CategoricalDistribution(("a", "b", "c")),
    }
    study = optuna.create_study(direction="maximize")
    for kind, heat, score in zip(kinds, heats, scores, strict=True):
        values = {"heat": heat, "kind": "abc"[kind]}
        study.add_trial(optuna.create_trial(params=values, distributions=space, value=score))
    evaluator = MeanDecreaseImpurityImportanceEvaluator(n_trees=TREES, seed=4)
    expected = get_param_importances(study, evaluator=evaluator, params=["heat", "kind"])
    columns = np.column_stack([heats, kinds == 0, kinds == 1, kinds == 2]).astype(float)
    found = forest_shares(["heat", "kind", "kind", "kind"], columns, scores, seed=4)
    assert found == pytest.approx(expected)
    assert 0.05 < found["heat"] < found["kind"]


def test_of_a_hundred_trials_it_is_told_what_puts_one_among_the_best(make_record: MakeRecord) -> None:
    (found,) = importances(RunFacts("digits", by_temperature(make_record, LEAST_FOR_TOP)))
    top = {share.name: share.top for share in found.shares}
    assert top.pop(CHANCE) is None
    assert sum(share for share in top.values() if share) == pytest.approx(1)
    assert (top["temperature"] or 0) > 0.8


def test_a_forest_of_a_large_search_grows_from_a_sample_that_the_page_states(
    make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.reports.importance.MOST_DRAWN", 25)
    drawn: list[int] = []

    def noted(names: Sequence[str], values: Any, scores: Any, *, seed: int) -> dict[str, float]:
        drawn.append(len(values))
        return forest_shares(names, values, scores, seed=seed)

    monkeypatch.setattr("orchestrator.reports.importance.forest_shares", noted)
    facts = RunFacts("digits", by_temperature(make_record, LEAST_FOR_TOP))
    (found,) = importances(facts)
    assert drawn == [25] * RESAMPLES
    assert (found.n_trials, found.shares[0].name) == (LEAST_FOR_TOP, "temperature")
    assert f"forests of {TREES} trees, each of {MOST_DRAWN} trials at most" in report_html(facts)


def test_kept_samples_are_those_of_the_groups_that_have_a_mask(summary: Summary) -> None:
    events = [
        told(trial, number, number, 1, **{"train/kept_weak": share * number, "train/kept_strong": 0.5})
        for trial, share in (("f2-0", 0.1), ("f2-1", 0.2))
        for number in (1, 2)
    ]
    found = kept_curves(RunFacts("digits", [], events, summary))
    assert {name: [curve.means for curve in curves] for name, curves in found.items()} == {
        "kept_strong": [[50, 50]],
        "kept_weak": [pytest.approx([15, 30])],
    }


def test_where_no_finalist_has_a_mask_the_best_trials_with_one_are_shown(
    summary: Summary, make_record: MakeRecord
) -> None:
    record = make_record("s3", 0.9, objective="zipf").model_copy(update={"final": {"train/kept": 0.5}})
    events = [told("s3", 1, 1, 1, **{"train/kept": 0.5})]
    (curves,) = kept_curves(RunFacts("digits", [record], events, summary)).values()
    assert [curve.group.name for curve in curves] == ["zipf (s3)"]
    assert kept_chart(RunFacts("digits", [record], [told("s3", 1, 1, 1)], summary)) is None


def test_slices_are_of_completed_trials_and_not_too_many(make_record: MakeRecord) -> None:
    names = [f"p{number:02}" for number in range(MOST_PANELS + 4)]
    records = [
        make_record(f"t{number}", 0.5 + number / 100, parameters=dict.fromkeys(names, float(number)))
        for number in range(4)
    ]
    pruned = make_record("p", 0.1, status="pruned", parameters={"of the pruned": 1.0})
    facts = RunFacts("digits", [*records, pruned])
    assert [axis.name for axis in slice_axes(facts)] == names[:MOST_PANELS]
    assert slices_chart(RunFacts("digits", records[:2])) is None


def test_slices_of_several_objectives_tell_them_apart(make_record: MakeRecord) -> None:
    records = [
        make_record(f"t{number}", 0.9, objective=objective, parameters={"temperature": float(number)})
        for number, objective in enumerate(("kd", "crld", "kd", "dkd"))
    ]
    chart = slices_chart(RunFacts("digits", records))
    assert chart is not None
    assert [key.name for key in chart.keys] == ["crld", "dkd", "kd"]
    assert len({key.look.marker for key in chart.keys}) == 3


def test_the_reasons_name_rank_runner_up_and_gain(
    summary: Summary, search_records: list[TrialRecord]
) -> None:
    chosen, second, gain, ties = why_champion(RunFacts("digits", search_records), summary)
    assert chosen.startswith("Finalist 1 (kd: temperature 4, kd_weight 0.5) is the champion")
    assert "95.00 ± 1.00 %, is the best of 2 finalists" in chosen
    assert "it was number 1 of 5 trials" in chosen
    assert second.startswith("Next is finalist 2 (crld), 2.00 points behind")
    assert "+4.00 points over control" in gain
    assert ties.startswith("Ties would have gone to fewer parameters")


def test_a_better_finalist_that_was_not_allowed_is_named(
    summary: Summary, search_records: list[TrialRecord]
) -> None:
    better = summary.finalists[1].with_overrides(selection_mean=0.99)
    changed = summary.model_copy(update={"finalists": (summary.finalists[0], better)})
    facts = RunFacts("digits", search_records, where="params <= 9000")
    chosen, others, *_ = why_champion(facts, changed)
    assert "the best of 2 finalists" not in chosen
    assert "is the best that satisfies params <= 9000" in chosen
    assert others == "The mean of finalist 2 is higher, but it does not satisfy params <= 9000."


def test_why_says_by_what_it_was_chosen_where_another_figure_or_a_tie_decided(
    summary: Summary, search_records: list[TrialRecord]
) -> None:
    asked = Picked(rank="latency_ms", tie="f1-1 and f2-1 are equal in latency_ms (0.1); f1-1 comes first")
    changed = summary.with_overrides(picked=asked)
    chosen, *_, rank, tie = why_champion(RunFacts("digits", search_records), changed)
    assert "best" not in chosen
    assert rank == "The champion is the best by latency_ms of the finalists."
    assert tie.startswith("A tie: f1-1 and f2-1 are equal in latency_ms")
