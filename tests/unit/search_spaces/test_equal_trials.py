"""A space whose objectives are compared, each at its best: equal trials, in turns, and one finalist each."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError

from search_spaces.equal_trials import in_turns, spread
from search_spaces.space import SpaceConfig
from search_spaces.tune_plan import search_plan
from trainables.config import digest_of

PLAIN: dict[str, Any] = {
    "name": "compared",
    "objectives": {
        "ce": {},
        "kd": {"temperature": {"choice": [1, 2, 4]}, "kd_weight": {"loguniform": [0.5, 10]}},
        "dkd": {"beta": {"choice": [1, 8]}},
    },
    "training": {"lr": {"loguniform": [0.01, 1]}},
    "search": {"each_objective": True},
}


def space(**changes: Any) -> SpaceConfig:
    return SpaceConfig.from_plain({**PLAIN, **changes})


def test_each_objective_gets_as_many_trials_as_the_others() -> None:
    drawn = [config["objective"] for config in in_turns(space(), trials=12, seed=3)]
    assert Counter(drawn) == {"ce": 4, "kd": 4, "dkd": 4}
    assert drawn[:6] == ["ce", "kd", "dkd"] * 2


def test_the_papers_values_are_the_first_of_each_objective() -> None:
    first = in_turns(space(), trials=3, seed=3)
    assert first[1]["kd"] == {"temperature": 4.0, "kd_weight": 0.9}
    assert first[2]["dkd"] == {"beta": 8.0}
    assert all(0.01 <= config["training"]["lr"] <= 1 for config in first)


def test_a_larger_budget_begins_with_the_trials_of_a_smaller_one() -> None:
    assert in_turns(space(), trials=30, seed=3)[:10] == in_turns(space(), trials=10, seed=3)


def test_another_objective_in_the_space_changes_no_draw_of_the_others() -> None:
    more = space(objectives={**PLAIN["objectives"], "dist": {"dist_weight": {"uniform": [1, 4]}}})
    of_kd = [config for config in in_turns(more, trials=16, seed=3) if config["objective"] == "kd"]
    assert of_kd == [config for config in in_turns(space(), trials=12, seed=3) if config["objective"] == "kd"]


def test_no_objective_misses_a_value_of_a_list_that_another_one_has() -> None:
    listed = space(training={"lr": {"choice": [0.03, 0.1, 0.3]}})
    drawn = in_turns(listed, trials=18, seed=5)
    for name in ("ce", "kd", "dkd"):
        rates = [config["training"]["lr"] for config in drawn if config["objective"] == name]
        assert Counter(rates) == {0.03: 2, 0.1: 2, 0.3: 2}
        assert set(rates[:3]) == {0.03, 0.1, 0.3}


RANGES: dict[str, dict[str, list[float]]] = {
    "even": {"uniform": [2, 10]},
    "by logarithm": {"loguniform": [1, 100]},
    "on a step": {"quniform": [1, 8, 0.5]},
    "around a mean": {"normal": [4, 0.5]},
}


@pytest.mark.parametrize("domain", RANGES.values(), ids=RANGES)
def test_a_few_turns_are_spread_over_a_range(domain: dict[str, list[float]]) -> None:
    """Each third of the range, by what is drawn evenly of it, has a fair share of nine values."""
    of_kd = space(objectives={"kd": {"temperature": domain}}, search={"each_objective": True})
    found = of_kd.domains("kd")["kd", "temperature"]
    values = sorted(float(spread(found, turn, digest_of("a stream"))) for turn in range(9))
    evenly = sorted(float(spread(found, turn, digest_of("another"))) for turn in range(3000))
    thirds = evenly[1000], evenly[2000]
    counts = [sum(low <= v < high for v in values) for low, high in pairwise((-1e9, *thirds, 1e9))]
    assert all(2 <= count <= 4 for count in counts)
    assert all(found.contains(value) for value in values)


@pytest.mark.parametrize("domain", [{"randint": [1, 4]}, {"lograndint": [1, 4]}, {"qrandint": [2, 8, 2]}])
def test_every_whole_number_of_a_range_is_met(domain: dict[str, list[int]]) -> None:
    wholes = space(
        objectives={"reviewkd": {"warmup_epochs": domain}},
        search={"each_objective": True, "points_to_evaluate": []},
    )
    found = wholes.domains("reviewkd")["reviewkd", "warmup_epochs"]
    values = {spread(found, turn, digest_of("a stream")) for turn in range(60)}
    assert values == set(range(1, 4)) or values == {2, 4, 6, 8}


def test_draws_differ_by_seed_and_by_turn() -> None:
    rates = [config["training"]["lr"] for config in in_turns(space(), trials=12, seed=3)]
    assert len(set(rates)) == 12
    assert rates != [config["training"]["lr"] for config in in_turns(space(), trials=12, seed=4)]


def test_every_draw_is_a_value_of_the_space() -> None:
    for config in in_turns(space(), trials=30, seed=1):
        resolved = space().resolve(config)
        assert resolved.objective["name"] == config["objective"]


def test_the_plan_walks_the_list_once() -> None:
    plan = search_plan(space(), trials=12, seed=3, max_epochs=4)
    assert (plan.num_samples, plan.trials) == (1, 12)
    assert plan.param_space["grid"]["grid_search"] == in_turns(space(), trials=12, seed=3)


def test_an_algorithm_that_chooses_objectives_itself_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"optuna chooses the objectives itself.*allowed: random"):
        space(search={"each_objective": True, "algorithm": "optuna"})


def test_other_spaces_read_as_they_did_before() -> None:
    assert "each_objective" not in space(search={}).plain()["search"]
