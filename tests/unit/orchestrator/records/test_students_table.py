"""The table of students, and what is said of whom a gain is over: each finalist's own control, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from orchestrator.records.costs import StudentCosts
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.selection import PairedDifference, group_of, group_trials
from orchestrator.records.student_figures import Beside, Control, Finalist, control_students, finalist_of
from orchestrator.records.summary import Summary, TrialRow
from orchestrator.records.tables.more_columns import gain_text
from orchestrator.records.tables.students_table import comparison, students_table
from orchestrator.terminal.formatting import percent, short_parameters

MakeRecord = Callable[..., TrialRecord]
COSTS = StudentCosts(params=10.0, size_bytes=40.0, latency_ms=0.1)


@pytest.fixture
def students(make_record: MakeRecord) -> Callable[..., tuple[Any, dict[str, Any]]]:
    """Two seeds with these test accuracies, whose selection accuracies are the same."""

    def build(name: str, accuracies: Sequence[float], **fields: Any) -> tuple[Any, dict[str, Any]]:
        records = [
            make_record(f"{name}-{seed}", accuracy, seed=seed, **fields)
            for seed, accuracy in enumerate(accuracies)
        ]
        tested = [{"accuracy": accuracy} for accuracy in accuracies]
        return group_of(records), dict(zip((r.trial for r in records), tested, strict=True))

    return build


@pytest.fixture
def control(students: Callable[..., Any]) -> Callable[..., Control]:
    def build(name: str, accuracies: Sequence[float], parameters: dict[str, Any], **own: Any) -> Control:
        group, tests = students(name, accuracies, objective="ce")
        return control_students(group, tests, COSTS, varied=parameters, **own)

    return build


@pytest.fixture
def finalist(students: Callable[..., Any]) -> Callable[..., Finalist]:
    def build(name: str, accuracies: Sequence[float], controls: list[Control], **fields: Any) -> Finalist:
        group, tests = students(name, accuracies, **fields)
        return finalist_of(group, controls, tests, COSTS)

    return build


def with_finalists(summary: Summary, *finalists: Finalist, trials: Sequence[TrialRow] = ()) -> Summary:
    """A summary whose champion is the first seed of the first of these."""
    champion = summary.champion.with_overrides(trial_id=finalists[0].trials[0])
    return summary.with_overrides(finalists=finalists, champion=champion, trials=trials or summary.trials)


def trial(objective: str, parameters: dict[str, Any]) -> TrialRow:
    fields: dict[str, Any] = {"id": "t", "status": "completed", "epochs": 5, "selection_accuracy": 0.5}
    return TrialRow(objective=objective, hyper_parameters=parameters, **fields)


def rows_of(summary: Summary) -> dict[str, tuple[str, str, str]]:
    """By name of the row, its gain, its control and its hyper-parameters."""
    return {row[0]: (row[4], row[5], row[9]) for row in students_table(summary)[1]}


def test_each_finalist_of_a_search_over_width_has_the_control_of_its_own_width(
    summary: Summary, control: Callable[..., Control], finalist: Callable[..., Finalist]
) -> None:
    controls = {
        width: control(f"ce-{width}", accuracies, {"student.width": width})
        for width, accuracies in ((16, (0.80, 0.82)), (64, (0.86, 0.88)))
    }
    kd = {width: {"temperature": 4.0, "student.width": width} for width in controls}
    large = finalist("large", (0.90, 0.92), [controls[64]], parameters=kd[64])
    small = finalist("small", (0.81, 0.83), [controls[16]], parameters=kd[16])
    shown = with_finalists(summary, large, small)
    rows = rows_of(shown)
    assert rows["control 1"] == ("", "", "student.width 64")
    assert rows["control 2"] == ("", "", "student.width 16")
    # Over the control of width 16 it would be +10.00.
    assert rows["finalist 1 (champion)"][:2] == ("+4.00 [+4.00, +4.00]", "control 1")
    assert rows["finalist 2"][:2] == ("+1.00 [+1.00, +1.00]", "control 2")
    assert comparison(shown) == (
        "A gain is over the finalist's own control: a student that learns from the labels alone, with the "
        "same architecture, resolution, epochs and seeds, and the same recipe.",
    )


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (
            0.25,
            "Beside labelled images students with a teacher learned from 4,000 unlabelled images (left out: "
            "7 in the selection split too, 1,200 in the test split too), 0.25 of each batch; controls from "
            "labelled ones alone, as many in an epoch, in batches of the recipe's size, so in fewer steps.",
        ),
        (1.0, "in the place of labelled ones, an epoch being one pass over them; controls from labelled"),
    ],
)
def test_what_students_had_beside_labelled_images_is_said(summary: Summary, share: float, said: str) -> None:
    assert "unlabelled" not in summary.plain()
    counts = {"count": 4000, "in_selection": 7, "in_test": 1200, "share": share}
    beside = summary.with_overrides(unlabelled=counts)
    assert any(said in sentence for sentence in comparison(beside))
    assert not any("unlabelled" in sentence for sentence in comparison(summary))


def test_controls_with_other_recipes_stand_beside_the_better_one_and_are_named(
    summary: Summary, control: Callable[..., Control], finalist: Callable[..., Finalist]
) -> None:
    tuned = control("tuned", (0.80, 0.82), {"training.lr": 0.1}, recipe="search")
    plain = control("plain", (0.86, 0.88), {"training.lr": 0.4})
    best = finalist("best", (0.90, 0.92), [plain, tuned], parameters={"training.lr": 0.1})
    shown = with_finalists(summary, best, trials=[trial("kd", {"training.lr": lr}) for lr in (0.1, 0.2, 0.4)])
    rows = rows_of(shown)
    assert rows["control"] == ("", "", "training.lr 0.4 (the experiment's recipe)")
    assert rows["control, recipe 2"] == ("", "", "training.lr 0.1 (a recipe of the search)")
    assert rows["finalist 1 (champion)"][:2] == ("+4.00 [+4.00, +4.00]", "control")
    first, recipes, own = comparison(shown)
    assert first.endswith("the same architecture, resolution, epochs and seeds.")
    assert recipes.startswith("The search tried 3 recipes (training.lr). A control has the best, on the")
    assert own == (
        "finalist 1: control is the best of 2 recipes on the selection split; the test gain is "
        "+10.00 [+10.00, +10.00] over control, recipe 2."
    )


def test_a_finalist_without_a_teacher_may_be_the_control_of_others_and_has_no_gain(
    summary: Summary, control: Callable[..., Control], finalist: Callable[..., Finalist]
) -> None:
    lr = {"training.lr": 0.2}
    plain = control("plain", (0.80, 0.82), {"training.lr": 0.4})
    tuned = control("tuned", (0.86, 0.88), lr, recipe="search")
    itself = finalist("tuned", (0.86, 0.88), [tuned, plain], objective="ce", parameters=lr)
    taught = finalist("taught", (0.87, 0.89), [tuned, plain], parameters=lr)
    trials = [trial("kd", lr), trial("ce", lr)]
    shown = with_finalists(summary, taught, itself, trials=trials)
    rows = rows_of(shown)
    assert rows["finalist 1 (champion)"][:2] == ("+1.00 [+1.00, +1.00]", "finalist 2")
    assert rows["finalist 2"][:2] == ("", "itself")
    assert rows["finalist 2, recipe 2"][2] == "training.lr 0.4 (the experiment's recipe)"
    said = " ".join(comparison(shown))
    assert "The search tried cross-entropy too, and the best recipe that it found for it counts." in said
    assert "finalist 2 learns from the labels alone and is its own control, so it has no gain." in said


def test_what_an_earlier_version_compared_with_another_architecture_is_told(
    summary: Summary, control: Callable[..., Control], finalist: Callable[..., Finalist]
) -> None:
    large = finalist("large", (0.9, 0.9), [control("b", (0.8, 0.8), {})], parameters={"student.width": 64})
    said = " ".join(comparison(with_finalists(summary, large)))
    assert (
        "The control of finalist 1 has another architecture or number of epochs: an earlier version" in said
    )
    assert "Remove summary.json and run again" in said


def test_an_earlier_version_trained_no_control_with_a_recipe_of_the_search(
    summary: Summary, control: Callable[..., Control], finalist: Callable[..., Finalist]
) -> None:
    lr = {"training.lr": 0.2}
    own = finalist("f", (0.9, 0.9), [control("b", (0.8, 0.8), {})], parameters=lr)
    said = " ".join(comparison(with_finalists(summary, own, trials=[trial("kd", lr)])))
    assert "The search tried 1 recipe (training.lr). The control was not tuned: an earlier version" in said


def test_a_seed_that_failed_is_left_out_of_a_pair_alone(
    summary: Summary, students: Callable[..., Any], make_record: MakeRecord
) -> None:
    group, tests = students("f", (0.9, 0.8))
    whole, others = students("whole", (0.7, 0.7), objective="ce")
    second = group_of([make_record("second-1", 0.9, seed=1, objective="ce")])
    none = group_of([make_record("none-5", 0.9, seed=5, objective="ce")])
    tests |= {**others, "second-1": {"accuracy": 0.75}, "none-5": {"accuracy": 0.9}}
    controls = [control_students(g, tests, COSTS) for g in (whole, second, none)]
    found = finalist_of(group, controls, tests, COSTS)
    (other,) = found.beside  # no seed is common with the third
    assert (found.test_gain.n, other.test_gain.n) == (2, 1)
    assert found.test_gain.mean == pytest.approx(0.15)
    assert other.test_gain.mean == pytest.approx(0.05)


def test_what_the_search_saw_stands_beside_what_the_seeds_confirm(
    control: Callable[..., Control], students: Callable[..., Any], summary: Summary
) -> None:
    group, tests = students("f", (0.9, 0.8), parameters={"t": 1})
    found = finalist_of(group, [control("c", (0.7, 0.6), {})], tests, COSTS, beside=Beside(search_score=0.93))
    columns, rows = students_table(with_finalists(summary, found))
    place = columns.index("in the search, %")
    assert columns[place + 1] == "selection, %"
    assert [row[place] for row in rows] == ["", "", "93.00"]
    assert rows[-1][place + 1].startswith("85.00")
    assert "in the search, %" not in students_table(summary)[0]


def test_a_control_with_label_smoothing_has_a_row_and_the_gain_over_it_a_column(
    control: Callable[..., Control], students: Callable[..., Any], summary: Summary
) -> None:
    plain = control("c", (0.7, 0.6), {})
    smoothed = control("s", (0.8, 0.72), {}).with_overrides(objective="ls")
    group, tests = students("f", (0.9, 0.8), parameters={"t": 1})
    found = finalist_of(group, [plain], tests, COSTS, beside=Beside(smoothed=smoothed))
    columns, rows = students_table(with_finalists(summary, found))
    names = [row[0] for row in rows]
    assert names == ["teacher", "control", "control, label smoothing", "finalist 1 (champion)"]
    place = columns.index("test gain over label smoothing, points (95 %)")
    assert rows[-1][place].startswith("+9.00 [")
    assert rows[-1][4].startswith("+20.00")
    assert rows[2][1] == "ls"


def test_the_table_shows_teacher_control_and_finalists(summary: Summary) -> None:
    columns, rows = students_table(summary)
    assert all(len(row) == len(columns) for row in rows)
    assert rows[0] == ("teacher", "", "98.00", "97.00", "", "", "1,000,000", "", "", "")
    assert rows[1] == ("control", "ce", "91.00 ± 1.00", "90.00 ± 1.00", "", "", "9,610", "0.125", "", "")
    assert rows[2] == (
        "finalist 1 (champion)",
        "kd",
        "95.00 ± 1.00",
        "94.00 ± 1.00",
        "+4.00 [+1.52, +6.48]",
        "control",
        "9,610",
        "0.125",
        "",
        "temperature 4, kd_weight 0.5",
    )
    assert rows[3][0] == "finalist 2"


def test_a_latency_has_its_95th_percentile_where_that_is_known(measured: Summary, summary: Summary) -> None:
    columns, rows = students_table(measured)
    place = columns.index("latency, ms")
    assert [row[place] for row in rows] == ["2.500 (p95 3.000)", *["0.125 (p95 0.180)"] * 3]
    assert [row[place] for row in students_table(summary)[1]] == ["", *["0.125"] * 3]


def test_each_student_has_its_speed_up_over_the_teacher_on_the_same_device(
    measured: Summary, summary: Summary
) -> None:
    columns, rows = students_table(measured)
    place = columns.index("speed-up")
    assert [row[place] for row in rows] == ["", *["20.0x"] * 3]
    assert [row[place] for row in students_table(summary)[1]] == [""] * 4
    assert measured.teacher is not None
    elsewhere = measured.with_overrides(teacher=measured.teacher.with_overrides(latency_device="another"))
    assert [row[place] for row in students_table(elsewhere)[1]] == [""] * 4


def test_where_classes_are_uneven_the_balanced_accuracy_stands_beside_the_accuracy(summary: Summary) -> None:
    control = summary.finalists[0].control.with_overrides(test_balanced_accuracy=0.25)
    uneven = with_finalists(summary, summary.finalists[0].with_overrides(control=control))
    assert uneven.teacher is not None
    teacher = uneven.teacher.with_overrides(test_balanced_accuracy=0.5)
    rows = students_table(uneven.with_overrides(teacher=teacher))[1]
    assert [row[3] for row in rows[:2]] == ["97.00 (balanced 50.00)", "90.00 ± 1.00 (balanced 25.00)"]


def test_figures_of_the_test_split_are_means_over_the_seeds(students: Callable[..., Any]) -> None:
    group, tested = students("f", (0.9, 0.8))
    for seed, figures in enumerate(tested.values()):
        figures |= {
            "nll": 1.0 + seed,
            "ece": 0.1,
            "agreement": 0.5 + seed / 4,
            "answered_classes": 9.0 - seed,
        }
    found = control_students(group, tested, COSTS)
    assert (found.test_nll, found.test_ece, found.test_agreement) == pytest.approx((1.5, 0.1, 0.625))
    assert (found.test_balanced_accuracy, found.answered_classes) == (None, 8)
    del tested["f-1"]["agreement"]
    assert control_students(group, tested, COSTS).test_agreement is None


def test_one_seed_is_told_as_such() -> None:
    assert percent(0.5) == "50.00"
    assert gain_text(PairedDifference(n=1, mean=-0.012, std=None, low=None, high=None)) == "-1.20 (one seed)"
    assert short_parameters({"lr": 0.0123456, "width": 16, "gate": "own_view"}) == (
        "lr 0.0123, width 16, gate own_view"
    )


def in_precision(summary: Summary, finalist: str, control: str) -> Summary:
    own = summary.finalists[0].control.with_overrides(precision=control)
    return summary.with_overrides(
        finalists=[each.with_overrides(precision=finalist, control=own) for each in summary.finalists]
    )


def test_the_precision_of_all_students_is_said(summary: Summary) -> None:
    same = in_precision(summary, "bf16 (table 1)", "bf16 (table 1)")
    assert comparison(same)[-1] == "Controls and finalists were trained in bf16 (table 1)."
    other = in_precision(summary, "bf16 (table 1)", "fp32 (asked for)")
    expected = "Trained control in fp32 (asked for); finalist 1, finalist 2 in bf16 (table 1)."
    assert comparison(other)[-1] == expected
    assert not any("rained in" in sentence for sentence in comparison(summary))


def test_seeds_of_two_precisions_are_not_shown_as_one(make_record: Callable[..., Any]) -> None:
    (group,) = group_trials(
        [make_record(f"f-{s}", 0.9, seed=s, precision=p) for s, p in enumerate(("fp32 (a)", "bf16 (b)"))]
    )
    found = control_students(group, {f"f-{s}": {"accuracy": 0.9} for s in range(2)}, COSTS)
    assert found.precision == "fp32 (a) and bf16 (b)"
