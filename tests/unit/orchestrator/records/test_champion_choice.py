"""How a champion is chosen: by which figure, from which front, with which word on ties and refusals."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config.constraints import parse_constraints
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.picking.champion import (
    Ranking,
    choose_champion,
    group_figures,
    trial_figures,
)
from orchestrator.records.picking.fronts import first_front, fronts
from orchestrator.records.picking.nearest_miss import NobodyFits, miss_rows
from orchestrator.records.picking.picked import Picked, Placed, front_table, placed, told
from orchestrator.records.selection import choose_finalists, group_trials, score_of
from trainables.config.metrics import AGREEMENT, KL_TO_TEACHER
from trainables.errors import StillhouseError

MakeRecord = Callable[..., TrialRecord]
Three = tuple[list[TrialRecord], dict[str, dict[str, float]]]
PAIR = ("selection_accuracy", "latency_ms")
THREE = (*PAIR, "params")
coordinates = st.integers(0, 4).map(float)


def cost(params: float, latency_ms: float = 1.0, **more: float) -> dict[str, float]:
    return {"params": params, "size_bytes": 4 * params, "latency_ms": latency_ms, **more}


def of(make_record: MakeRecord, **accuracies: float) -> list[TrialRecord]:
    return [make_record(name, accuracy, parameters={"t": name}) for name, accuracy in accuracies.items()]


@pytest.fixture
def three(make_record: MakeRecord) -> Three:
    """Slow and good, quick and fair, and one that quick beats in all."""
    records = of(make_record, good=0.95, quick=0.90, worse=0.85)
    return records, {"good": cost(900, 3.0), "quick": cost(100, 1.0), "worse": cost(50, 2.0)}


def chosen(three: Three, where: str = "", ranking: Ranking = Ranking()) -> str:  # noqa: B008 (frozen)
    records, figures = three
    conditions = parse_constraints(where) if where else ()
    return choose_champion(group_trials(records), figures, conditions, ranking).record.trial


def test_the_champion_is_the_best_by_the_figure_that_is_asked_for(three: Three) -> None:
    assert chosen(three) == "good"
    assert chosen(three, ranking=Ranking("latency_ms")) == "quick"
    assert chosen(three, "latency_ms >= 2", Ranking("params")) == "worse"


def test_alternatives_let_in_whoever_meets_one(three: Three) -> None:
    assert chosen(three, "params <= 150 or accuracy >= 0.94") == "good"
    assert chosen(three, "params <= 150 or accuracy >= 0.96") == "quick"


def test_with_fronts_the_champion_is_the_best_of_the_first(three: Three) -> None:
    """Ranked by size alone `worse` is the best, and another beats it in both figures."""
    assert chosen(three, ranking=Ranking("params")) == "worse"
    assert chosen(three, ranking=Ranking("params", PAIR)) == "quick"
    assert chosen(three, "latency_ms >= 2", Ranking("params", PAIR)) == "worse"


def test_a_figure_that_no_finalist_has_is_told(three: Three) -> None:
    with pytest.raises(StillhouseError, match=r"no finalist has all .* \(latency_p95_ms\)"):
        chosen(three, ranking=Ranking("latency_p95_ms"))


def test_means_over_seeds_are_what_is_compared(make_record: MakeRecord) -> None:
    records = [
        make_record(f"a-{s}", 0.9 + s / 100, seed=s, nll=0.1 * (s + 1), seconds=10.0 + s) for s in (0, 2)
    ]
    (group,) = group_trials(records)
    found = group_figures(group, {"a-2": cost(5, selection_gain=0.02)})
    assert found["selection_accuracy"] == pytest.approx(0.91)
    assert found["selection_nll"] == pytest.approx(0.2)
    assert found["seconds"] == pytest.approx(11.0)
    assert found["selection_std"] == pytest.approx(0.0141421, rel=1e-4)
    assert found["selection_gain"] == 0.02


def near_teacher(make_record: MakeRecord, name: str, *near: tuple[float, float] | None) -> list[TrialRecord]:
    """A student for each seed; none where an earlier version trained it, which did not compare."""
    records = []
    for seed, pair in enumerate(near):
        record = make_record(f"{name}-{seed}", 0.9, seed=seed, parameters={"name": name})
        figures = {} if pair is None else dict(zip((AGREEMENT, KL_TO_TEACHER), pair, strict=True))
        records.append(record.model_copy(update={"best": {**record.best, **figures}}))
    return records


def test_students_are_picked_by_how_near_they_come_to_the_teacher(make_record: MakeRecord) -> None:
    records = [
        *near_teacher(make_record, "a", (0.9, 0.3), (0.8, 0.1)),
        *near_teacher(make_record, "b", (0.7, 0.1), (0.7, 0.2)),
        *near_teacher(make_record, "c", (0.99, 0.01), None),
    ]
    groups, costs = group_trials(records), {record.trial: cost(1) for record in records}
    found = {group.representative.trial[0]: group_figures(group, costs) for group in groups}
    assert (found["a"]["selection_agreement"], found["b"]["selection_kl_to_teacher"]) == pytest.approx(
        (0.85, 0.15)
    )
    assert not {"selection_agreement", "selection_kl_to_teacher"} & found["c"].keys()
    assert trial_figures(records[0], costs)["selection_kl_to_teacher"] == 0.3
    for by, chosen_first in (("selection_agreement", "a"), ("selection_kl_to_teacher", "b")):
        assert choose_champion(groups, costs, (), Ranking(by)).record.trial[0] == chosen_first
    where = parse_constraints("agreement <= 0.8 and kl_to_teacher < 0.16")
    assert choose_champion(groups, costs, where).record.trial[0] == "b"


def test_a_tie_is_broken_by_what_is_said(make_record: MakeRecord) -> None:
    groups = group_trials(of(make_record, a=0.9, b=0.9, c=0.8))
    small = choose_champion(groups, {"a": cost(200), "b": cost(100), "c": cost(1)}, ())
    assert small.record.trial == "b"
    assert small.tie == (
        "b and a are equal in selection_accuracy (0.9); b comes first by its params, 100 against 200"
    )
    same = choose_champion(groups, {"a": cost(100), "b": cost(100), "c": cost(1)}, ())
    assert same.tie is not None
    assert same.tie.endswith("a comes first by its name, since all else is equal")


def test_where_nobody_is_as_good_no_tie_is_told(three: Three) -> None:
    records, figures = three
    assert choose_champion(group_trials(records), figures, ()).tie is None


def test_students_equal_in_another_figure_are_told_apart_by_accuracy(make_record: MakeRecord) -> None:
    groups = group_trials(of(make_record, a=0.8, b=0.9))
    champion = choose_champion(groups, {"a": cost(100), "b": cost(100)}, (), Ranking("params"))
    assert champion.record.trial == "b"
    assert "b comes first by its selection_accuracy, 0.9 against 0.8" in str(champion.tie)


def test_where_nobody_fits_each_constraint_has_its_nearest_miss_and_price(three: Three) -> None:
    with pytest.raises(NobodyFits, match=r"none of 3 students meets latency_ms <= 1\.5 and") as refusal:
        chosen(three, "latency_ms <= 1.5 and accuracy >= 92 %")
    speed, accuracy = refusal.value.misses
    assert (speed.closest, speed.without) == ("good", "good")
    assert speed.miss == "latency_ms 3 misses latency_ms <= 1.5 by 1.5"
    assert speed.accuracy_below_best == 0.0
    assert (accuracy.closest, accuracy.without) == ("quick", "quick")
    assert accuracy.accuracy_below_best == pytest.approx(0.05)
    assert accuracy.figures == {"selection_accuracy": 0.9}
    assert refusal.value.exit_code == 2
    assert refusal.value.facts["nearest_misses"][0]["closest"] == "good"
    assert miss_rows(refusal.value.misses)[1] == (
        "selection_accuracy >= 0.92",
        "quick",
        "selection_accuracy 0.9 misses selection_accuracy >= 0.92 by 0.02",
        "90.00",
        "5.00",
        "quick",
        "90.00",
    )


def test_where_the_others_are_not_met_either_that_is_the_answer(three: Three) -> None:
    with pytest.raises(NobodyFits) as refusal:
        chosen(three, "params <= 1 and latency_ms <= 0.1 and accuracy >= 0.5")
    by_constraint = {miss.constraint: miss for miss in refusal.value.misses}
    assert by_constraint["params <= 1"].closest is None
    assert by_constraint["params <= 1"].miss == "no student meets the others"
    assert miss_rows(refusal.value.misses)[0][3:] == ("", "", "", "")


def test_the_best_without_a_constraint_is_the_best_of_those_that_meet_the_others(three: Three) -> None:
    with pytest.raises(NobodyFits) as refusal:
        chosen(three, "params <= 20 and latency_ms <= 1.5")
    (params, _latency) = refusal.value.misses
    assert (params.closest, params.without, params.without_accuracy) == ("quick", "quick", 0.9)


def test_a_search_without_a_student_that_fits_is_answered_likewise(three: Three) -> None:
    records, figures = three
    with pytest.raises(NobodyFits) as refusal:
        choose_finalists(records, figures, parse_constraints("params <= 20 and accuracy >= 0.99"), 2)
    (miss,) = refusal.value.misses  # the mean over the seeds is not known yet
    assert (miss.constraint, miss.closest, miss.without) == ("params <= 20", "worse", "good")


def test_costs_and_means_in_one_alternative_keep_a_student_in_the_search(three: Three) -> None:
    records, figures = three
    bounds = parse_constraints("params <= 50 or accuracy >= 0.99")
    assert len(choose_finalists(records, figures, bounds, 3)) == 3


def test_fronts_are_counted_from_the_best(three: Three) -> None:
    records, figures = three
    points = {r.trial: {**figures[r.trial], "selection_accuracy": score_of(r)} for r in records}
    assert fronts(points, PAIR) == {"good": 1, "quick": 1, "worse": 2}


def test_equal_students_share_a_front_and_who_lacks_a_figure_has_none() -> None:
    points = {"a": {"params": 1.0, "epochs": 2.0}, "b": {"params": 1.0, "epochs": 2.0}, "c": {"params": 0.0}}
    assert fronts(points, ("params", "epochs")) == {"a": 1, "b": 1}


def test_the_front_keeps_what_nothing_else_beats() -> None:
    points = {
        "best": {"selection_accuracy": 0.9, "latency_ms": 3.0, "params": 5.0},
        "fast": {"selection_accuracy": 0.8, "latency_ms": 1.0, "params": 5.0},
        "beaten": {"selection_accuracy": 0.8, "latency_ms": 2.0, "params": 5.0},
        "twin": {"selection_accuracy": 0.9, "latency_ms": 3.0, "params": 5.0},
    }
    assert first_front(points, THREE) == ["best", "fast", "twin"]
    assert first_front(points, ("selection_accuracy", "params")) == ["best", "twin"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(coordinates, coordinates, coordinates), min_size=1, max_size=12))
def test_every_point_off_the_front_is_beaten_by_one_on_it(rows: list[tuple[float, float, float]]) -> None:
    points = {
        str(i): {"selection_accuracy": a, "latency_ms": b, "params": c} for i, (a, b, c) in enumerate(rows)
    }
    front = first_front(points, THREE)
    assert front

    def beats(one: str, other: str) -> bool:
        (a, b, c), (x, y, z) = rows[int(one)], rows[int(other)]
        return a >= x and b <= y and c <= z and (a, b, c) != (x, y, z)

    for name in points:
        assert (name in front) == (not any(beats(other, name) for other in points))
        assert name in front or any(beats(other, name) for other in front)


def test_fronts_are_those_that_peeling_gives() -> None:
    """The first front, then the first of what is left, and so on."""
    drawn = random.Random(3)
    points = {f"p{n}": {name: float(drawn.randint(0, 6)) for name in THREE} for n in range(60)}
    left, expected = dict(points), {}
    for number in range(1, 61):
        for name in first_front(left, THREE):
            expected[name] = number
        left = {name: point for name, point in points.items() if name not in expected}
        if not left:
            break
    assert fronts(points, THREE) == expected


def test_students_stand_by_front_and_then_by_the_ranking(three: Three) -> None:
    records, figures = three
    points = {r.trial: {**figures[r.trial], "selection_accuracy": score_of(r)} for r in records}
    found = placed(points, Ranking("latency_ms", PAIR))
    assert [(each.trial, each.front) for each in found] == [("quick", 1), ("good", 1), ("worse", 2)]
    assert found[0].figures == {"selection_accuracy": 0.9, "latency_ms": 1.0}


def test_the_table_of_fronts_says_what_it_leaves_out() -> None:
    students = [
        Placed(trial="a", front=1, figures={"selection_accuracy": 0.9, "latency_ms": 1.25}),
        Placed(trial="b", front=None, figures={"selection_accuracy": 0.8}),
    ]
    title, columns, rows = front_table("trials", students, PAIR, top=1)
    assert title == (
        "fronts of trials by selection_accuracy, latency_ms, the first 1 of 2; 1 student without all of "
        "these figures"
    )
    assert columns == ("front", "student", "selection_accuracy, %", "latency_ms")
    assert rows == [("1", "a", "90.00", "1.25")]


def test_what_was_asked_for_is_told_and_nothing_where_nothing_was() -> None:
    assert told(Picked()) == []
    picked = Picked(where="params <= 5", rank="latency_ms", pareto=PAIR, tie="a and b are equal")
    assert told(picked) == [
        "The champion is the best by latency_ms of the finalists that meet params <= 5 on the first front by "
        "selection_accuracy, latency_ms.",
        "A tie: a and b are equal.",
    ]
