from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import scipy.stats  # type: ignore[import-untyped]

from orchestrator.config.constraints import parse_constraints
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.picking.champion import choose_champion
from orchestrator.records.selection import (
    choose_finalists,
    group_trials,
    paired_difference,
    rank_trials,
)
from trainables.errors import StillhouseError

MakeRecord = Callable[..., TrialRecord]


def cost(params: float, latency_ms: float = 1.0) -> dict[str, float]:
    return {"params": params, "size_bytes": 4 * params, "latency_ms": latency_ms}


def test_only_completed_trials_are_ranked_best_first(make_record: MakeRecord) -> None:
    records = [
        make_record("a", 0.8),
        make_record("b", 0.99, status="pruned"),
        make_record("c", 0.9),
        make_record("d", None, status="failed"),
        make_record("e", 0.95, status="running"),
    ]
    assert [record.trial for record in rank_trials(records)] == ["c", "a"]


def test_ties_go_to_fewer_parameters_then_lower_nll_then_the_id(make_record: MakeRecord) -> None:
    records = [
        make_record("z", 0.9, nll=0.3),
        make_record("y", 0.9, nll=0.2),
        make_record("x", 0.9, nll=0.2),
        make_record("w", 0.9, nll=0.9),
    ]
    figures = {"z": cost(10), "y": cost(10), "x": cost(10), "w": cost(5)}
    assert [record.trial for record in rank_trials(records, figures)] == ["w", "x", "y", "z"]
    assert [record.trial for record in rank_trials(records[::-1])] == ["x", "y", "z", "w"]


def test_finalists_have_distinct_hyper_parameters(make_record: MakeRecord) -> None:
    records = [
        make_record("a", 0.93, parameters={"temperature": 4.0, "lr": 0.1}),
        make_record("b", 0.92, parameters={"lr": 0.1, "temperature": 4.0}),
        make_record("c", 0.91, parameters={"temperature": 4.0, "lr": 0.1}, objective="dkd"),
        make_record("d", 0.90, parameters={"temperature": 2.0, "lr": 0.1}),
    ]
    figures = {name: cost(1) for name in "abcd"}
    chosen = choose_finalists(records, figures, (), 2)
    assert [record.trial for record in chosen] == ["a", "c"]
    assert len(choose_finalists(records, figures, (), 9)) == 3


def test_the_best_of_each_objective_is_a_finalist_where_they_are_compared(make_record: MakeRecord) -> None:
    records = [
        make_record("a", 0.93, parameters={"temperature": 4.0}),
        make_record("b", 0.92, parameters={"temperature": 2.0}),
        make_record("c", 0.60, parameters={"temperature": 4.0}, objective="dkd"),
        make_record("d", 0.70, parameters={"temperature": 2.0}, objective="dkd"),
    ]
    figures = {name: cost(1) for name in "abcd"}
    chosen = choose_finalists(records, figures, (), 9, each_objective=True)
    assert [record.trial for record in chosen] == ["a", "d"]


def test_finalists_meet_the_constraints(make_record: MakeRecord) -> None:
    records = [
        make_record("big", 0.99, parameters={"width": 9}),
        make_record("small", 0.90, parameters={"width": 1}),
    ]
    figures = {"big": cost(2e6), "small": cost(5e5)}
    chosen = choose_finalists(records, figures, parse_constraints("params <= 1e6"), 5)
    assert [record.trial for record in chosen] == ["small"]


def test_an_accuracy_in_a_constraint_is_the_mean_over_the_seeds_and_not_that_of_the_search(
    make_record: MakeRecord,
) -> None:
    searched = [make_record("a", 0.894, parameters={"t": 1}), make_record("b", 0.88, parameters={"t": 2})]
    costs = {name: cost(1) for name in ("a", "b", "a-0", "a-1")}
    constraints = parse_constraints("selection_accuracy >= 0.9")
    assert choose_finalists(searched, costs, constraints, 1) == [searched[0]]
    seeds = [make_record(f"a-{seed}", 0.9081, seed=seed, parameters={"t": 1}) for seed in (0, 1)]
    assert choose_champion(group_trials(seeds), costs, constraints).group.mean == pytest.approx(0.9081)


def test_constraints_that_exclude_everybody_name_the_closest_and_by_how_much(make_record: MakeRecord) -> None:
    records = [make_record("far", 0.9, parameters={"w": 1}), make_record("near", 0.8, parameters={"w": 2})]
    figures = {"far": cost(100, 9.0), "near": cost(100, 2.5)}
    with pytest.raises(
        StillhouseError,
        match=r"none of 2 students meets latency_ms <= 2 .*near: latency_ms 2\.5 misses .* by 0\.5; far",
    ):
        choose_finalists(records, figures, parse_constraints("latency_ms <= 2 and params <= 1e6"), 1)


def test_a_search_without_a_completed_trial_says_why(make_record: MakeRecord) -> None:
    records = [make_record("a", status="failed", reason="the loss is nan"), make_record("b", status="pruned")]
    with pytest.raises(StillhouseError, match=r"1 failed, 1 pruned.*the loss is nan"):
        choose_finalists(records, {}, (), 1)


def test_a_trial_that_was_never_profiled_is_named(make_record: MakeRecord) -> None:
    with pytest.raises(StillhouseError, match="trial a was never profiled"):
        choose_finalists([make_record("a", 0.9)], {}, (), 1)


def test_a_group_has_the_mean_and_sample_deviation_of_its_seeds(make_record: MakeRecord) -> None:
    records = [
        make_record("c", 0.96, seed=2),
        make_record("a", 0.90, seed=0),
        make_record("b", 0.93, seed=1),
        make_record("d", 0.99, seed=3, status="failed"),
    ]
    (group,) = group_trials(records)
    assert group.seeds == (0, 1, 2)
    assert group.mean == pytest.approx(0.93)
    assert group.std == pytest.approx(0.03)  # squared deviations 9, 0, 9 over n - 1 = 2, in 1e-4
    assert group.representative.trial == "c"


def test_a_group_of_one_seed_has_no_deviation(make_record: MakeRecord) -> None:
    (group,) = group_trials([make_record("a", 0.9)])
    assert group.std is None


def test_the_champion_has_the_best_mean_and_ships_its_best_seed(make_record: MakeRecord) -> None:
    records = [
        make_record("lucky-0", 0.99, seed=0, parameters={"t": 1}),
        make_record("lucky-1", 0.85, seed=1, parameters={"t": 1}),
        make_record("steady-0", 0.93, seed=0, parameters={"t": 2}),
        make_record("steady-1", 0.95, seed=1, parameters={"t": 2}),
    ]
    champion = choose_champion(group_trials(records), {r.trial: cost(1) for r in records}, ())
    assert champion.record.trial == "steady-1"
    assert champion.group.mean == pytest.approx(0.94)


def test_equal_champions_are_told_apart_by_parameters_then_latency(make_record: MakeRecord) -> None:
    groups = group_trials([make_record(name, 0.9, parameters={"name": name}) for name in "abc"])
    figures = {"a": cost(9, 1.0), "b": cost(5, 3.0), "c": cost(5, 2.0)}
    assert choose_champion(groups, figures, ()).record.trial == "c"


def test_a_group_that_lost_a_seed_yields_to_whole_groups(make_record: MakeRecord) -> None:
    records = [
        make_record("half", 0.99, seed=0, parameters={"t": 1}),
        make_record("whole-0", 0.90, seed=0, parameters={"t": 2}),
        make_record("whole-1", 0.90, seed=1, parameters={"t": 2}),
    ]
    figures = {r.trial: cost(1) for r in records}
    assert choose_champion(group_trials(records), figures, ()).record.trial == "whole-0"
    figures["half"], figures["whole-0"] = cost(1), cost(100)
    limited = choose_champion(group_trials(records), figures, parse_constraints("params <= 10"))
    assert limited.record.trial == "half"


def test_a_champion_that_nobody_can_be_is_an_error(make_record: MakeRecord) -> None:
    groups = group_trials([make_record("a", 0.9)])
    with pytest.raises(StillhouseError, match=r"a: selection_accuracy 0\.9 misses .* by 0\.05"):
        choose_champion(groups, {"a": cost(1)}, parse_constraints("selection_accuracy >= 0.95"))
    with pytest.raises(StillhouseError, match="no finalist was completed"):
        choose_champion([], {}, ())


def test_the_paired_difference_agrees_with_scipys_paired_test() -> None:
    ours, control = {0: 0.95, 1: 0.93, 2: 0.97, 3: 0.94}, {3: 0.92, 2: 0.93, 1: 0.92, 0: 0.93, 9: 0.1}
    found = paired_difference(ours, control)
    expected = scipy.stats.ttest_rel([ours[s] for s in range(4)], [control[s] for s in range(4)])
    interval = expected.confidence_interval(0.95)
    assert found.n == 4
    assert found.mean == pytest.approx(0.0225)
    assert found.std == pytest.approx(math.sqrt((0.0025**2 + 0.0125**2 + 0.0175**2 + 0.0025**2) / 3))
    assert found.low == pytest.approx(interval.low)
    assert found.high == pytest.approx(interval.high)


def test_one_common_seed_gives_a_difference_without_an_interval() -> None:
    found = paired_difference({0: 0.9, 1: 0.8}, {0: 0.7, 2: 0.1})
    assert (found.n, found.std, found.low, found.high) == (1, None, None, None)
    assert found.mean == pytest.approx(0.2)


def test_no_common_seed_cannot_be_compared() -> None:
    with pytest.raises(StillhouseError, match="train both with the same seeds"):
        paired_difference({0: 0.9}, {1: 0.7})
