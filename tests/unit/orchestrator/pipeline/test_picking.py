"""What a finished search leaves to do: slots work only for students that the ledger lacks."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.config.loading import load_experiment
from orchestrator.pipeline import picking
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.stages import Stages
from orchestrator.pipeline.workers import Workers
from orchestrator.records.events import StageEvent
from orchestrator.records.ledger import Ledger
from orchestrator.terminal.console import Console
from tests.older_runs.unpacking import unpack_older_run
from trainables.config import Role
from trainables.errors import ConfigError, StillhouseError


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A finished run of an older version, as its own experiment file sees it."""
    loaded = load_experiment(str(unpack_older_run(tmp_path)))
    out = tmp_path / "out" / "three_trials"
    ledger, console = Ledger(out), Console(out=io.StringIO())
    return Run(loaded, out, ledger, Stages(ledger, console), Workers(loaded.config, out, console), console)


def but(run: Run, *, where: str | None = None, budget: Mapping[str, int] | None = None) -> Run:
    config = run.experiment.with_overrides(
        budget=run.experiment.budget.with_overrides(**(budget or {})),
        pick=run.experiment.pick.with_overrides(where=where),
    )
    return replace(run, loaded=replace(run.loaded, config=config))


def search_of(run: Run) -> str:
    return run.ledger.trials(role=Role.SEARCH)[0].search


def test_a_finished_search_can_be_picked_from(run: Run) -> None:
    picking.require_search(run)
    picking.require_search(but(run, where="params <= 700"))


def test_a_search_of_other_options_is_another_one(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"there is nothing to pick: .*with the same options"):
        picking.require_search(but(run, budget={"trials": 4}))


def test_slots_are_left_alone_where_every_finalist_was_trained_and_tested(run: Run) -> None:
    search = search_of(run)
    assert not picking.slots_are_needed(run, search)
    assert not picking.slots_are_needed(but(run, where="selection_accuracy >= 0.2"), search)


@pytest.mark.parametrize("budget", [{"trials": 4}, {"finalists": 2}, {"seeds": 3}])
def test_slots_are_needed_for_students_that_the_ledger_lacks(run: Run, budget: dict[str, int]) -> None:
    assert picking.slots_are_needed(but(run, budget=budget), search_of(run))


def test_constraints_that_nobody_meets_are_told_before_anything_starts(run: Run) -> None:
    with pytest.raises(StillhouseError, match="none of 3 students meets params <= 10"):
        picking.slots_are_needed(but(run, where="params <= 10"), search_of(run))


def test_slots_are_needed_where_costs_or_test_figures_are_not_known(run: Run, tmp_path: Path) -> None:
    for stage in ("profile", "test"):
        ledger = Ledger(tmp_path / stage)
        for event in run.ledger.events():
            if not (isinstance(event, StageEvent) and event.stage == stage):
                ledger.append(event)
        assert picking.slots_are_needed(
            replace(run, ledger=ledger, stages=Stages(ledger, run.console)), search_of(run)
        )
