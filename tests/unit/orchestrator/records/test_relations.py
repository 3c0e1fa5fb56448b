"""What a student repeats and whom it is compared with: data of the ledger, never read out of a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.records.costs import StudentCosts
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.relations import (
    control_of,
    controls_of,
    repeated_trial,
    smoothed_controls_of,
    with_repetitions,
)
from orchestrator.records.trial_names import control_name
from trainables.config import Role
from trainables.errors import StillhouseError

MakeRecord = Callable[..., TrialRecord]
SMALL = StudentCosts(params=10.0, size_bytes=40.0, latency_ms=0.1)
LARGE = StudentCosts(params=90.0, size_bytes=360.0, latency_ms=0.9)


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


def control(
    make_record: MakeRecord,
    trial: str,
    accuracy: float = 0.7,
    *,
    width: int = 4,
    seed: int = 7,
    **changes: Any,
) -> TrialRecord:
    record = make_record(trial, accuracy, role=Role.BASELINE, objective="ce", **changes)
    return with_spec(record, width=width, seed=seed, objective={"name": "ce"})


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
    costs = {"small": SMALL, "large": LARGE}
    finalists = [
        finalist(make_record, "new", width=4, repeats="small"),
        finalist(make_record, "old", width=16),
    ]
    controls = [
        control(make_record, "ce-1-seed0", repeats="ce-1"),
        control(make_record, "ce-2-seed0", width=16, repeats="ce-2"),
    ]
    found = with_repetitions(costs, searched=searched, finalists=finalists, controls=controls)
    assert found == {**costs, "new": SMALL, "old": LARGE, "ce-1-seed0": SMALL, "ce-2-seed0": LARGE}
    assert set(costs) == {"small", "large"}


def test_a_control_whose_network_was_never_profiled_has_no_costs(
    make_record: MakeRecord, searched: list[TrialRecord]
) -> None:
    stray = control(make_record, "ce-1-seed0", width=5, repeats="ce-1")
    with pytest.raises(StillhouseError, match="no trial with the network of control ce-1-seed0 was profiled"):
        with_repetitions({"small": SMALL}, searched=searched, finalists=[], controls=[stray])


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
def test_a_finalist_whose_trial_is_not_known_has_no_costs(
    make_record: MakeRecord, searched: list[TrialRecord], changes: dict[str, Any], message: str
) -> None:
    stray = finalist(make_record, "f", **{"width": 4, **changes})
    with pytest.raises(StillhouseError, match=message):
        with_repetitions({"small": SMALL}, searched=searched, finalists=[stray], controls=[])


def test_a_finalist_is_compared_with_the_student_of_its_own_width_and_epochs(make_record: MakeRecord) -> None:
    controls = [
        control(make_record, f"{name}-{seed}", width=width, repeats=name, seed=seed)
        for name, width in (("ce-16", 16), ("ce-64", 64))
        for seed in (7, 8)
    ]
    longer = with_spec(control(make_record, "l", 0.99, repeats="ce-long"), width=64, training={"epochs": 9})
    for width in (16, 64):
        own = finalist(make_record, "f", width=width, repeats="small")
        found = control_of(own, [longer, *controls]).records
        assert [record.trial for record in found] == [f"ce-{width}-7", f"ce-{width}-8"]


def of_recipe(record: TrialRecord, lr: float) -> TrialRecord:
    return record.model_copy(update={"spec": {**record.spec, "training": {"epochs": 5, "lr": lr}}})


def test_of_several_recipes_the_best_by_selection_accuracy_is_the_control(make_record: MakeRecord) -> None:
    own = of_recipe(finalist(make_record, "f", width=4, repeats="small"), 0.1)
    controls = [
        of_recipe(control(make_record, f"{name}-{seed}", accuracy, repeats=name, seed=seed), lr)
        for name, accuracy, lr in (("at-0.1", 0.7, 0.1), ("at-0.4", 0.8, 0.4))
        for seed in (7, 8)
    ]
    groups = controls_of(own, controls)
    assert [group.records[0].trial for group in groups] == ["at-0.4-7", "at-0.1-7"]
    # A recipe that lost a seed comes after those that did not, however good the seeds are that are left.
    lucky = of_recipe(control(make_record, "lucky-7", 0.9, repeats="lucky"), 0.2)
    assert [group.n for group in controls_of(own, [lucky, *controls])] == [2, 2, 1]


def test_students_with_label_smoothing_stand_beside_the_control_and_are_none(make_record: MakeRecord) -> None:
    own = finalist(make_record, "f", width=4, repeats="small")
    plain = control(make_record, "ce-7", 0.7, repeats="ce")
    smoothed = with_spec(
        make_record("ls-7", 0.9, role=Role.BASELINE, objective="ls", repeats="ls"), width=4, seed=7
    )
    other = with_spec(
        make_record("ls-8", 0.95, role=Role.BASELINE, objective="ls", repeats="w"), width=16, seed=7
    )
    students = [smoothed, plain, other]
    assert [group.records[0].trial for group in controls_of(own, students)] == ["ce-7"]
    assert [group.records[0].trial for group in smoothed_controls_of(own, students)] == ["ls-7"]
    assert smoothed_controls_of(own, [plain]) == []


def test_a_finalist_that_learns_from_labels_alone_is_a_control_too(make_record: MakeRecord) -> None:
    tuned = finalist(make_record, "tuned", width=4, repeats="t2", objective="ce")
    taught = finalist(make_record, "taught", width=4, repeats="t1")
    plain = control(make_record, "plain", 0.7, repeats="ce-1")
    for one in (tuned, taught):
        assert [g.records[0].trial for g in controls_of(one, [plain, tuned, taught])] == ["tuned", "plain"]


def earlier_control(make_record: MakeRecord, trial: str, *, width: int, search: str = "s") -> TrialRecord:
    """As an earlier version recorded it: without the name that its seeds share."""
    parts = {"objective": {"name": "ce"}, "student": {"width": width}, "training": {"epochs": 5}}
    record = control(make_record, trial, search=search)
    return record.model_copy(update={"spec": {**record.spec, **parts}})


def test_in_an_earlier_ledger_a_search_had_one_control(make_record: MakeRecord) -> None:
    controls = [
        earlier_control(make_record, "mine", width=16),
        earlier_control(make_record, "theirs", width=4, search="other"),
        control(make_record, "later", width=5, repeats="ce-2"),
    ]
    old = finalist(make_record, "f", width=4)
    assert [record.trial for record in control_of(old, controls).records] == ["mine"]


def test_in_an_earlier_ledger_a_finalist_named_its_control(make_record: MakeRecord) -> None:
    mine, other = (earlier_control(make_record, f"c{width}", width=width) for width in (4, 16))
    named = finalist(make_record, "f", width=8, repeats="small", control=control_name("s", mine.spec))
    assert [record.trial for record in control_of(named, [other, mine]).records] == ["c4"]
    with pytest.raises(StillhouseError, match="no student without a teacher that has its architecture"):
        control_of(named, [other])


def test_a_finalist_of_an_earlier_ledger_has_the_control_that_this_version_adds(
    make_record: MakeRecord,
) -> None:
    earlier = earlier_control(make_record, "of-width-16", width=16)
    named = with_spec(
        finalist(make_record, "f", width=64, repeats="small", control=control_name("s", earlier.spec)),
        width=64,
    )
    assert control_of(named, [earlier]).records == (earlier,)
    added = control(make_record, "of-width-64", width=64, repeats="ce-64")
    assert control_of(named, [earlier, added]).records == (added,)


def test_a_finalist_whose_control_failed_is_compared_with_no_other(make_record: MakeRecord) -> None:
    failed = control(make_record, "ce-1-seed0", repeats="ce-1", status="failed")
    other = control(make_record, "ce-2-seed0", width=16, repeats="ce-2")
    own = finalist(make_record, "f", width=4, repeats="small")
    for students in ([failed, other], [other]):
        with pytest.raises(StillhouseError, match="finalist f cannot be compared"):
            control_of(own, students)
