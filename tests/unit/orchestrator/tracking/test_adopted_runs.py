"""Runs that the store has of a ledger, one of which a late request may have made twice."""

from __future__ import annotations

import pytest

from orchestrator.tracking.changes import TrialStart
from orchestrator.tracking.store import KnownRun, RunStore
from orchestrator.tracking.writer import RunWriter


def run(run_id: str) -> KnownRun:
    return KnownRun(run_id, "RUNNING")


def never() -> RunStore:
    raise AssertionError("the store is not asked")


def writer() -> RunWriter:
    return RunWriter(never, lambda trial: TrialStart(trial, {}, {}, 0))


FOUND = [
    ("experiment", None, run("p1")),
    ("trial", "t-1", run("a1")),
    ("experiment", None, run("p2")),
    ("trial", "t-1", run("a2")),
    ("trial", "t-2", run("b1")),
    ("note", None, run("foreign")),
]


@pytest.mark.parametrize(
    ("written", "parent", "kept", "doubles"),
    [
        (set[str](), "p1", "a1", {"p2", "a2"}),
        ({"p1", "a1"}, "p1", "a1", {"p2", "a2"}),
        ({"p2", "a2"}, "p2", "a2", {"p1", "a1"}),
        ({"p2", "a1"}, "p2", "a1", {"p1", "a2"}),
    ],
)
def test_the_run_that_was_written_into_is_kept_and_else_the_first(
    written: set[str], parent: str, kept: str, doubles: set[str]
) -> None:
    ours = writer()
    found, late = ours.adopt(FOUND, written)
    assert found is not None
    assert found.run_id == parent
    assert {trial: each.run_id for trial, each in ours.runs.items()} == {"t-1": kept, "t-2": "b1"}
    assert {each.run_id for each in late} == doubles


def test_a_store_without_runs_of_the_ledger_has_no_parent() -> None:
    assert writer().adopt([], {"p1"}) == (None, [])
