"""What a space names as the figure that ranks decides, and every table says which figure it shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.constraints import parse_constraints
from orchestrator.pipeline.finished import champion_lines
from orchestrator.records.bad_outcomes import bad_outcomes
from orchestrator.records.costs import StudentCosts
from orchestrator.records.events import EpochEnded, TrialStarted
from orchestrator.records.ledger import Ledger, TrialRecord
from orchestrator.records.picking.champion import choose_champion
from orchestrator.records.ranked_figures import splits, teachers_test
from orchestrator.records.relations import control_of
from orchestrator.records.selection import choose_finalists, group_trials, rank_trials
from orchestrator.records.student_figures import control_students, finalist_of
from orchestrator.records.summary import Summary, champion_of, trial_row
from orchestrator.records.tables.students_table import COLUMNS, comparison, students_table
from orchestrator.reports.charts.costs import cost_chart, cost_panels
from orchestrator.reports.charts.curves import curves_chart, curves_of
from orchestrator.reports.charts.groups import groups_of
from orchestrator.reports.charts.parallel_coordinates import parallel_of
from orchestrator.reports.html_report import report_html
from orchestrator.reports.run_facts import RunFacts
from orchestrator.tracking.names import summary_figures
from orchestrator.tracking.parent import ParentFacts
from orchestrator.tracking.views import VIEW_TAG, filtered_runs_url, shared_views
from trainables.config import Role
from trainables.config.metrics import RankBy
from trainables.errors import StillhouseError

MakeRecord = Callable[..., TrialRecord]
KNN, PROBE = RankBy.KNN_ACCURACY, RankBy.PROBE_ACCURACY
COSTS = StudentCosts(params=9610.0, size_bytes=38_744.0, latency_ms=0.125)
FIGURES = {name: {"params": 5.0, "size_bytes": 5.0, "latency_ms": 1.0} for name in "abc"}


@pytest.fixture
def judged(make_record: MakeRecord) -> MakeRecord:
    """Makes a record that is ranked by kNN accuracy, and whose own answers are as good as said."""

    def make(trial: str, knn: float, own: float, by: RankBy = KNN, **changes: Any) -> TrialRecord:
        record = make_record(trial, own, **changes)
        spec = {**record.spec, "rank_by": by.value}
        best = {**record.best, by.metric: knn}
        return record.model_copy(update={"spec": spec, "best": best, "final": best})

    return make


@pytest.fixture
def knn_summary(summary: Summary, judged: MakeRecord) -> Summary:
    """A finalist whose features are better than its control's, though its own answers are those of chance."""
    (finalist,) = group_trials(
        [judged(f"f-{s}", 0.8 + s / 100, 0.1, seed=s, objective="simreg") for s in range(3)]
    )
    (control,) = group_trials(
        [judged(f"c-{s}", 0.7 + s / 100, 0.9, seed=s, objective="ce") for s in range(3)]
    )
    tested = {
        **{f"f-{s}": {"accuracy": 0.12, "knn_accuracy": 0.79 + s / 100, "ece": 0.5} for s in range(3)},
        **{f"c-{s}": {"accuracy": 0.88, "knn_accuracy": 0.70 + s / 100, "ece": 0.1} for s in range(3)},
    }
    beside = control_students(control, tested, COSTS)
    best = finalist_of(finalist, [beside], tested, COSTS)
    searched = (judged("s1", 0.75, 0.2), judged("s2", 0.65, 0.3, parameters={"temperature": 2.0}))
    assert summary.teacher is not None
    teacher = summary.teacher.model_copy(update={"test_ranked": 0.9})
    exports = {str(name): exported for name, exported in summary.champion.exports.items()}
    return summary.model_copy(
        update={
            "rank_by": KNN,
            "teacher": teacher,
            "trials": tuple(trial_row(record, None) for record in searched),
            "finalists": (best,),
            "champion": champion_of(best, "f-2", exports, "card.json"),
        }
    )


def test_trials_are_ranked_by_the_figure_of_their_specification(
    judged: MakeRecord, make_record: MakeRecord
) -> None:
    records = [judged("a", 0.5, 0.9), judged("b", 0.7, 0.1), judged("c", 0.6, 0.99)]
    assert [record.trial for record in rank_trials(records)] == ["b", "c", "a"]
    assert [record.score for record in records] == [0.5, 0.7, 0.6]
    usual = make_record("d", 0.4)
    assert (usual.rank_by, usual.score) == (RankBy.ACCURACY, 0.4)


def test_a_student_without_the_figure_that_ranks_is_no_candidate(make_record: MakeRecord) -> None:
    blind = make_record("a", 0.9)
    blind = blind.model_copy(update={"spec": {**blind.spec, "rank_by": "probe_accuracy"}})
    assert (blind.score, rank_trials([blind])) == (None, [])


def test_finalists_and_champion_follow_the_figure_and_so_do_constraints(judged: MakeRecord) -> None:
    records = [
        judged("a", 0.5, 0.9, objective="kd"),
        judged("b", 0.7, 0.1, objective="simreg"),
        judged("c", 0.6, 0.99, objective="rkd"),
    ]
    assert [record.trial for record in choose_finalists(records, FIGURES, (), 2)] == ["b", "c"]
    groups = group_trials(records)
    assert [group.mean for group in groups] == [0.7, 0.6, 0.5]
    assert choose_champion(groups, FIGURES, ()).record.trial == "b"
    bound = parse_constraints("selection_accuracy >= 0.65")
    assert choose_champion(groups, FIGURES, bound).record.trial == "b"
    with pytest.raises(StillhouseError, match=r"b: selection_accuracy 0\.7 misses .* by 0\.05"):
        choose_champion(groups, FIGURES, parse_constraints("selection_accuracy >= 0.75"))


def test_the_seed_that_is_exported_has_the_best_figure(judged: MakeRecord) -> None:
    (group,) = group_trials([judged("a", 0.5, 0.9, seed=0), judged("b", 0.6, 0.1, seed=1)])
    assert (group.representative.trial, group.scores, group.rank_by) == ("b", (0.5, 0.6), KNN)


def test_of_several_controls_the_one_with_the_best_figure_counts(judged: MakeRecord) -> None:
    def control(name: str, knn: float, own: float) -> TrialRecord:
        record = judged(name, knn, own, role=Role.BASELINE, objective="ce", repeats=name)
        return record.model_copy(update={"spec": {**record.spec, **alike}})

    alike = {"student": {"width": 4}, "training": {"epochs": 5}}
    finalist = judged("f", 0.9, 0.1, role=Role.FINALIST, objective="kd", repeats="t")
    finalist = finalist.model_copy(update={"spec": {**finalist.spec, **alike}})
    students = [finalist, control("sharp", 0.6, 0.95), control("rich", 0.7, 0.85)]
    assert control_of(finalist, students).records[0].trial == "rich"


@pytest.mark.parametrize(("by", "best"), [(None, 1), ("knn_accuracy", 2), ("probe_accuracy", 3)])
def test_the_ledgers_best_epoch_is_that_of_the_figure(tmp_path: Path, by: str | None, best: int) -> None:
    ledger = Ledger(tmp_path)
    spec = {"seed": 1} if by is None else {"seed": 1, "rank_by": by}
    ledger.append(
        TrialStarted(trial="a", role=Role.SEARCH, search="s", objective="kd", parameters={}, spec=spec)
    )
    for epoch in (1, 2, 3):
        metrics = {
            "selection/accuracy": 0.9 if epoch == 1 else 0.8,
            "selection/knn_accuracy": 0.7 if epoch == 2 else 0.6,
            "selection/probe_accuracy": 0.5 if epoch == 3 else 0.4,
        }
        ledger.append(EpochEnded(trial="a", epoch=epoch, metrics=metrics))
    record = ledger.trial("a")
    assert record is not None
    assert record.best_epoch == best
    ledger.close()


def test_a_summary_holds_the_figure_that_ranks_and_beside_it_what_own_answers_reach(
    knn_summary: Summary,
) -> None:
    (finalist,) = knn_summary.finalists
    assert finalist.selection_accuracies == pytest.approx((0.8, 0.81, 0.82))
    assert finalist.test_mean == pytest.approx(0.80)
    assert finalist.test_own_accuracy == pytest.approx(0.12)
    assert finalist.test_gain.mean == pytest.approx(0.09)
    assert finalist.selection_gain.mean == pytest.approx(0.1)
    assert (knn_summary.trials[0].selection_accuracy, knn_summary.trials[0].selection_own_accuracy) == (
        0.75,
        0.2,
    )
    assert Summary.from_plain(knn_summary.plain()) == knn_summary
    assert knn_summary.plain()["rank_by"] == "knn_accuracy"


def test_a_summary_of_accuracies_says_nothing_of_other_figures(summary: Summary) -> None:
    def keys(value: object) -> set[str]:
        if isinstance(value, dict):
            return set(value) | {key for each in value.values() for key in keys(each)}
        return {key for each in value for key in keys(each)} if isinstance(value, list) else set()

    named = {"rank_by", "test_ranked", "test_own_accuracy", "selection_own_accuracy"}
    assert not keys(summary.plain()) & named


def test_the_table_says_which_figure_it_shows(knn_summary: Summary, summary: Summary) -> None:
    columns, rows = students_table(knn_summary)
    assert columns[2:5] == (
        "selection kNN accuracy, %",
        "test kNN accuracy, %",
        "gain in test kNN accuracy over its control, points (95 %)",
    )
    assert rows[0][2:4] == ("(accuracy 98.00)", "90.00 (accuracy 97.00)")
    assert rows[1][2:4] == ("71.00 ± 1.00", "71.00 ± 1.00 (accuracy 88.00)")
    assert rows[2][2:5] == ("81.00 ± 1.00", "80.00 ± 1.00 (accuracy 12.00)", "+9.00 [+9.00, +9.00]")
    assert students_table(summary)[0] == COLUMNS


def test_a_teacher_without_such_features_is_shown_by_its_own_answers(knn_summary: Summary) -> None:
    assert knn_summary.teacher is not None
    teacher = knn_summary.teacher.model_copy(update={"test_ranked": None})
    without = knn_summary.model_copy(update={"teacher": teacher})
    assert students_table(without)[1][0][2:4] == ("(accuracy 98.00)", "(accuracy 97.00)")
    assert (teachers_test(without), teachers_test(knn_summary)) == (None, 0.9)


def test_sentences_say_which_figure_they_are_about(knn_summary: Summary, summary: Summary) -> None:
    assert splits(knn_summary).startswith("Selection is the kNN accuracy of a student's best epoch")
    assert splits(summary).startswith("Selection is the accuracy of a student's best epoch")
    assert comparison(knn_summary)[0].startswith("kNN accuracy is what the 20 nearest labelled")
    probed = comparison(knn_summary.model_copy(update={"rank_by": PROBE}))
    assert probed[0].startswith("Probe accuracy is that of logistic regression")
    assert comparison(summary)[0].startswith("A gain is over")
    assert champion_lines(knn_summary)[1:] == (
        "  means over 3 seeds: selection kNN accuracy 81.00 %, test kNN accuracy 80.00 %",
        "  exported: f-2, the seed with the best selection kNN accuracy: "
        "selection kNN accuracy 82.00 %, test kNN accuracy 81.00 %",
    )


def test_that_a_student_gives_one_class_is_told_where_its_answers_are_judged(knn_summary: Summary) -> None:
    (finalist,) = knn_summary.finalists
    silent = knn_summary.model_copy(
        update={"finalists": (finalist.model_copy(update={"answered_classes": 1}),)}
    )
    assert not any("same class" in told for told in bad_outcomes(silent))
    own = silent.model_copy(update={"rank_by": RankBy.ACCURACY})
    assert any("same class" in told for told in bad_outcomes(own))


def test_charts_show_the_figure_and_name_it(knn_summary: Summary, judged: MakeRecord) -> None:
    records = [judged("s1", 0.75, 0.2), judged("s2", 0.65, 0.3, parameters={"temperature": 2.0})]
    figures = {record.trial: COSTS.numbers() for record in records}
    told = [
        EpochEnded(trial="f-0", epoch=1, metrics={"selection/accuracy": 0.1, "selection/knn_accuracy": 0.6})
    ]
    facts = RunFacts("digits", records, told, knn_summary, figures)
    for chart in (cost_chart(facts), curves_chart(facts)):
        assert chart is not None
        assert "selection kNN accuracy, %" in chart.panels[0].drawing.markup
        assert "teacher" not in [key.name for key in chart.keys]  # its features are not judged there
    for panel in cost_panels(facts):
        assert [point.reached for point in panel.searched] == pytest.approx([75.0, 65.0])
        assert panel.teacher is None
    curves = curves_of(facts, KNN.metric, groups_of(facts))
    assert [curve.means for curve in curves] == [[60.0]]


def test_parallel_coordinates_end_with_the_figure(judged: MakeRecord) -> None:
    records = [
        judged("s1", 0.75, 0.2, parameters={"temperature": 1.0}),
        judged("s2", 0.65, 0.3, parameters={"temperature": 2.0}),
    ]
    parallel = parallel_of(RunFacts("digits", records))
    assert parallel is not None
    assert parallel.axes[-1].name == "selection kNN accuracy, %"
    assert parallel.lines[-1].tip.startswith("s1 (completed): 75.00 %")


def test_the_report_names_the_figure(knn_summary: Summary, judged: MakeRecord) -> None:
    page = report_html(RunFacts("digits", [judged("s1", 0.75, 0.2)], summary=knn_summary))
    assert "<span>Test kNN accuracy</span><strong>80.00 %</strong>" in page
    assert "88.9 % of the teacher&#x27;s" in page
    assert "the seed with the best selection kNN accuracy" in page


def test_mlflow_shows_and_sorts_by_the_figure() -> None:
    best = {"selection/accuracy": 0.1, "selection/knn_accuracy": 0.8}
    figures = summary_figures(best, {**best, "selection/knn_accuracy": 0.7}, epochs=3, best_epoch=2)
    assert figures == {
        "epochs": 3,
        "epoch_best": 2,
        "acc": 0.1,
        "knn_acc": 0.8,
        "acc_final": 0.1,
        "knn_acc_final": 0.7,
    }
    view = shared_views([], KNN, is_ranked=False)[VIEW_TAG]
    assert '"orderByKey": "metrics.`knn_acc`"' in view
    assert "metrics.`test_knn_acc`" in view
    assert "knn_acc" in filtered_runs_url("http://h", "7", KNN)
    assert "knn" not in shared_views([])[VIEW_TAG]
    told = ParentFacts(name="n", config={}, rank_by=KNN).description("7")
    assert "by `knn_acc`, the kNN accuracy on the selection split" in told
