"""What a student repeats and whom it is compared with: data of the ledger, never read out of a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.records.costs import StudentCosts
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.relations import CONTROL, control_of, repeated_trial, with_repetitions
from orchestrator.records.trial_names import control_name
from trainables.config import Role
from trainables.errors import StillhouseError

MakeRecord = Callable[..., TrialRecord]
SMALL = StudentCosts(params=10.0, size_bytes=40.0, latency_ms=0.1)
LARGE = StudentCosts(params=90.0, size_bytes=360.0, latency_ms=0.9)
PLAIN = StudentCosts(params=50.0, size_bytes=200.0, latency_ms=0.5)


@pytest.fixture
def searched(make_record: MakeRecord) -> list[TrialRecord]:
    """Two students of different widths, and a pruned one that is as the first."""
    return [
        with_spec(make_record("small", 0.8), width=4),
        with_spec(make_record("large", 0.9), width=16),
        with_spec(make_record("stopped", 0.95, status="pruned"), width=4),
    ]


def with_spec(record: TrialRecord, *, width: int, seed: int = 0, **own: Any) -> TrialRecord:
    spec = {"trial_id": record.trial, "role": record.role.value, "seed": seed, "student": {"width": width}}
    return record.model_copy(update={"spec": {**spec, "fork": None, "keep_states": False, **own}})


def finalist(make_record: MakeRecord, trial: str, *, width: int, **changes: Any) -> TrialRecord:
    return with_spec(make_record(trial, 0.85, role=Role.FINALIST, **changes), width=width, seed=7)


def control(make_record: MakeRecord, trial: str, **changes: Any) -> TrialRecord:
    return make_record(trial, 0.7, role=Role.BASELINE, objective="ce", **changes)


def test_a_finalist_names_the_trial_that_it_repeats_whatever_its_own_name_is(
    make_record: MakeRecord, searched: list[TrialRecord]
) -> None:
    odd = finalist(make_record, "small-seed3", width=16, repeats="large")
    assert repeated_trial(odd, searched).trial == "large"


def test_in_an_earlier_ledger_a_finalist_repeats_the_trial_with_its_specification(
    make_record: MakeRecord, searched: list[TrialRecord]
) -> None:
    assert repeated_trial(finalist(make_record, "any name", width=4), searched).trial == "small"
    assert repeated_trial(finalist(make_record, "another", width=16), searched).trial == "large"


def test_in_an_earlier_ledger_the_best_of_equal_trials_was_chosen(
    make_record: MakeRecord, searched: list[TrialRecord]
) -> None:
    fork = with_spec(
        make_record("fork", 0.9), width=4, seed=3, fork={"trial_id": "small", "epoch": 2}, keep_states=True
    )
    assert repeated_trial(finalist(make_record, "f", width=4), [*searched, fork]).trial == "fork"


def test_a_trial_of_another_search_is_not_what_was_repeated(
    make_record: MakeRecord, searched: list[TrialRecord]
) -> None:
    with pytest.raises(StillhouseError, match="finalist f: the ledger has no completed trial with the spec"):
        repeated_trial(finalist(make_record, "f", width=4, search="other"), searched)


def test_every_repetition_has_the_costs_of_what_it_repeats(
    make_record: MakeRecord, searched: list[TrialRecord]
) -> None:
    costs = {"small": SMALL, "large": LARGE, CONTROL: PLAIN}
    finalists = [
        finalist(make_record, "new", width=4, repeats="small", control="ce-1"),
        finalist(make_record, "old", width=16),
    ]
    controls = [control(make_record, "ce-1-seed0", repeats="ce-1")]
    found = with_repetitions(costs, searched=searched, finalists=finalists, controls=controls)
    assert found == {**costs, "new": SMALL, "old": LARGE, "ce-1-seed0": PLAIN}
    assert set(costs) == {"small", "large", CONTROL}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"repeats": "gone"},
            "finalist f: the ledger has no trial gone, which it repeats; restore the ledger",
        ),
        ({"repeats": "large"}, "trial large was never profiled"),
        ({"width": 5}, "the ledger has no completed trial with the specification that it repeats"),
    ],
)
def test_a_finalist_whose_trial_is_not_known_never_has_the_controls_costs(
    make_record: MakeRecord, searched: list[TrialRecord], changes: dict[str, Any], message: str
) -> None:
    stray = finalist(make_record, "f", **{"width": 4, **changes})
    with pytest.raises(StillhouseError, match=message):
        with_repetitions({"small": SMALL, CONTROL: PLAIN}, searched=searched, finalists=[stray], controls=[])


def test_a_finalist_is_compared_with_the_control_that_it_names(make_record: MakeRecord) -> None:
    controls = [
        control(make_record, f"{name}-{seed}", repeats=name, seed=seed)
        for name in ("ce-1", "ce-2")
        for seed in (0, 1)
    ]
    named = finalist(make_record, "f", width=4, repeats="small", control="ce-2")
    assert [record.trial for record in control_of(named, controls).records] == ["ce-2-0", "ce-2-1"]


def earlier_control(make_record: MakeRecord, trial: str, *, width: int, search: str = "s") -> TrialRecord:
    """As an earlier version recorded it: without the name that its seeds share."""
    parts = {"objective": {"name": "ce"}, "student": {"width": width}, "training": {"epochs": 5}}
    record = control(make_record, trial, search=search)
    return record.model_copy(update={"spec": {**record.spec, **parts}})


def test_in_an_earlier_ledger_a_search_had_one_control(make_record: MakeRecord) -> None:
    controls = [
        earlier_control(make_record, "mine", width=4),
        earlier_control(make_record, "theirs", width=4, search="other"),
        control(make_record, "later", repeats="ce-2"),
    ]
    old = finalist(make_record, "f", width=4)
    assert [record.trial for record in control_of(old, controls).records] == ["mine"]


def test_a_finalist_added_to_an_earlier_ledger_finds_the_control_there(make_record: MakeRecord) -> None:
    mine, other = (earlier_control(make_record, f"c{width}", width=width) for width in (4, 16))
    added = finalist(make_record, "f", width=4, repeats="small", control=control_name("s", mine.spec))
    assert [record.trial for record in control_of(added, [other, mine]).records] == ["c4"]
    with pytest.raises(StillhouseError, match=r"no student of control ce-\w+ was completed"):
        control_of(added, [other])


def test_a_control_without_a_completed_student_is_named(make_record: MakeRecord) -> None:
    failed = control(make_record, "ce-1-seed0", repeats="ce-1", status="failed")
    named = finalist(make_record, "f", width=4, repeats="small", control="ce-1")
    with pytest.raises(StillhouseError, match="no student of control ce-1 was completed"):
        control_of(named, [failed])
