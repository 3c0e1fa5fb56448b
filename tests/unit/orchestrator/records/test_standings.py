"""Where students stand: ranks, fronts and constraints."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from orchestrator.config.constraints import parse_constraints
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.picking.choice import Candidates
from orchestrator.records.picking.standings import standings
from trainables.config import Role


def seed(build: Callable[..., TrialRecord], name: str, score: float, number: int) -> TrialRecord:
    record = build(f"{name}-seed{number}", score, role=Role.FINALIST, parameters={"temperature": name})
    return record.model_copy(update={"spec": {**record.spec, "seed": number}})


@pytest.fixture
def finalists(make_record: Callable[..., TrialRecord]) -> list[TrialRecord]:
    scores = {"a": (0.90, 0.94), "b": (0.95, 0.91)}
    return [seed(make_record, name, s, n) for name, both in scores.items() for n, s in enumerate(both)]


@pytest.fixture
def control(make_record: Callable[..., TrialRecord]) -> TrialRecord:
    return make_record("c", 0.8, role=Role.BASELINE, objective="ce", repeats="ce-1")


def costs_of(records: Sequence[TrialRecord], **params: float) -> dict[str, dict[str, float]]:
    return {r.trial: {"params": params.get(r.trial, 9.0), "latency_ms": 1.0} for r in records}


def test_the_champion_is_first_then_its_seeds_then_other_finalists_then_the_search(
    finalists: list[TrialRecord], control: TrialRecord, search_records: list[TrialRecord]
) -> None:
    champion = next(record for record in finalists if record.trial == "a-seed0")
    costs = costs_of([*finalists, *search_records])
    found = standings(Candidates(search_records, finalists, [control], costs), champion, ())
    by_rank = sorted(found, key=lambda trial: found[trial].rank)
    assert by_rank == ["a-seed0", "a-seed1", "b-seed0", "b-seed1", "s1", "s3", "s2"]
    assert [found[trial].rank for trial in by_rank] == [1, 2, 3, 4, 5, 6, 7]


def test_seeds_stand_on_the_front_of_their_mean_and_trials_on_that_of_their_score(
    finalists: list[TrialRecord], control: TrialRecord, make_record: Callable[..., TrialRecord]
) -> None:
    small = make_record("small", 0.5)
    costs = costs_of([*finalists, small], small=1.0)
    found = standings(Candidates([small], finalists, [control], costs), finalists[0], ())
    assert {trial: standing.front for trial, standing in found.items()} == {
        "a-seed0": 2,
        "a-seed1": 2,
        "b-seed0": 1,
        "b-seed1": 1,
        "small": 1,
    }


def test_within_budget_goes_by_costs_and_by_the_mean_of_a_finalist(
    finalists: list[TrialRecord], control: TrialRecord, make_record: Callable[..., TrialRecord]
) -> None:
    lucky = make_record("lucky", 0.99)
    costs = costs_of([*finalists, lucky], lucky=20.0)
    where = parse_constraints("params <= 9 and selection_accuracy >= 0.925")
    found = standings(Candidates([lucky], finalists, [control], costs), finalists[0], where)
    assert {trial for trial, standing in found.items() if standing.within_budget} == {"b-seed0", "b-seed1"}
    assert found["lucky"].figures()["within_budget"] == 0.0
