"""Where students stand: ranks, fronts against a brute-force version, and constraints."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config.constraints import parse_constraints
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.selection import group_trials
from orchestrator.records.standings import fronts, standings
from trainables.config import Role

COST = st.integers(0, 4).map(float)


def beats(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(
        a < b for a, b in zip(one, other, strict=True)
    )


def peeled(points: Sequence[Sequence[float]]) -> list[int]:
    """Fronts by their definition: take away who is beaten by nobody, and again."""
    left, found, front = set(range(len(points))), [0] * len(points), 0
    while left:
        front += 1
        first = {i for i in left if not any(beats(points[j], points[i]) for j in left)}
        for index in first:
            found[index] = front
        left -= first
    return found


@given(st.lists(st.tuples(COST, COST, COST), min_size=1, max_size=25))
def test_fronts_are_those_of_their_definition(points: list[tuple[float, ...]]) -> None:
    assert fronts(points) == peeled(points)


def test_a_thousand_points_have_the_fronts_of_their_definition() -> None:
    draw = random.Random(0)
    points = [(draw.random(), draw.random(), float(draw.randrange(5))) for _ in range(300)]
    assert fronts(points) == peeled(points)


def seed(build: Callable[..., TrialRecord], name: str, score: float, number: int) -> TrialRecord:
    record = build(f"{name}-seed{number}", score, role=Role.FINALIST, parameters={"temperature": name})
    return record.model_copy(update={"spec": {**record.spec, "seed": number}})


@pytest.fixture
def finalists(make_record: Callable[..., TrialRecord]) -> list[TrialRecord]:
    scores = {"a": (0.90, 0.94), "b": (0.95, 0.91)}
    return [seed(make_record, name, s, n) for name, both in scores.items() for n, s in enumerate(both)]


def costs_of(records: Sequence[TrialRecord], **params: float) -> dict[str, dict[str, float]]:
    return {r.trial: {"params": params.get(r.trial, 9.0), "latency_ms": 1.0} for r in records}


def test_the_champion_is_first_then_its_seeds_then_other_finalists_then_the_search(
    finalists: list[TrialRecord], search_records: list[TrialRecord]
) -> None:
    groups = group_trials(finalists)
    champion = next(record for record in finalists if record.trial == "a-seed0")
    costs = costs_of([*finalists, *search_records])
    found = standings(search_records, groups, champion, costs, ())
    by_rank = sorted(found, key=lambda trial: found[trial].rank)
    assert by_rank == ["a-seed0", "a-seed1", "b-seed0", "b-seed1", "s1", "s3", "s2"]
    assert [found[trial].rank for trial in by_rank] == [1, 2, 3, 4, 5, 6, 7]


def test_seeds_stand_on_the_front_of_their_mean_and_trials_on_that_of_their_score(
    finalists: list[TrialRecord], make_record: Callable[..., TrialRecord]
) -> None:
    small = make_record("small", 0.5)
    groups = group_trials(finalists)
    costs = costs_of([*finalists, small], small=1.0)
    found = standings([small], groups, finalists[0], costs, ())
    assert {trial: standing.front for trial, standing in found.items()} == {
        "a-seed0": 2,
        "a-seed1": 2,
        "b-seed0": 1,
        "b-seed1": 1,
        "small": 1,
    }


def test_within_budget_goes_by_costs_and_by_the_mean_of_a_finalist(
    finalists: list[TrialRecord], make_record: Callable[..., TrialRecord]
) -> None:
    lucky = make_record("lucky", 0.99)
    groups = group_trials(finalists)
    costs = costs_of([*finalists, lucky], lucky=20.0)
    where = parse_constraints("params <= 9 and selection_accuracy >= 0.925")
    found = standings([lucky], groups, finalists[0], costs, where)
    assert {trial for trial, standing in found.items() if standing.within_budget} == {"b-seed0", "b-seed1"}
    assert found["lucky"].figures()["within_budget"] == 0.0
