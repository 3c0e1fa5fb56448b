"""What a finished search leaves to do: slots work only for students that the ledger lacks."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.loading import LoadedExperiment, load_experiment
from orchestrator.config.overrides import Overrides
from orchestrator.pipeline import picking
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.controls.equal_compute import controls_of_equal_compute_for
from orchestrator.pipeline.finished import require_somebody_fits, run_key
from orchestrator.pipeline.stages import Stages
from orchestrator.pipeline.workers import Workers
from orchestrator.records.events import StageEvent, TrialEnded
from orchestrator.records.ledger import Ledger
from orchestrator.records.ledger_writer import Bookkeeper
from orchestrator.records.picking.nearest_miss import NobodyFits
from orchestrator.search.trial_specs import repeat_jobs
from orchestrator.terminal.console import Console
from tests.older_runs.unpacking import unpack_older_run
from trainables.config import Role
from trainables.config.metrics import COMPUTE_OVER_CE
from trainables.errors import ConfigError, StillhouseError
from trainables.slots.messages import End, Message, TrainJob


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A finished run of an older version, as its own experiment file sees it."""
    loaded = load_experiment(str(unpack_older_run(tmp_path)))
    out = tmp_path / "out" / "three_trials"
    ledger, console = Ledger(out), Console(out=io.StringIO())
    return Run(loaded, out, ledger, Stages(ledger, console), Workers(loaded.config, out, console), console)


def but(run: Run, *, where: str | None = None, budget: Mapping[str, Any] | None = None) -> Run:
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


def finished_before(folder: Path) -> LoadedExperiment:
    """The finished run of an older version, which this version notes as finished too, by its own key."""
    file, out = unpack_older_run(folder), folder / "out" / "three_trials"
    loaded = load_experiment(str(file), overrides=Overrides(out=out))
    ledger = Ledger(out)
    key = run_key(loaded, ledger)
    ledger.append(StageEvent(stage="summary", key=key, status="finished", seconds=0.0, result={}))
    ledger.close()
    return loaded


def asking(loaded: LoadedExperiment, where: str, **changes: int) -> LoadedExperiment:
    pick = loaded.config.pick.with_overrides(where=where)
    return replace(loaded, config=loaded.config.with_overrides(pick=pick, **changes))


def test_constraints_that_nobody_meets_are_told_from_the_ledger_alone(tmp_path: Path) -> None:
    loaded = finished_before(tmp_path)
    with pytest.raises(NobodyFits, match="none of 3 students meets params <= 10"):
        require_somebody_fits(asking(loaded, "params <= 10"))
    require_somebody_fits(asking(loaded, "params >= 10"))


def test_of_another_search_nothing_is_told_before_the_run(tmp_path: Path) -> None:
    loaded = finished_before(tmp_path)
    require_somebody_fits(asking(loaded, "params <= 10", seed=loaded.config.seed + 1))


def test_slots_are_needed_where_costs_or_test_figures_are_not_known(run: Run, tmp_path: Path) -> None:
    for stage in ("profile", "test"):
        ledger = Ledger(tmp_path / stage)
        for event in run.ledger.events():
            if not (isinstance(event, StageEvent) and event.stage == stage):
                ledger.append(event)
        assert picking.slots_are_needed(
            replace(run, ledger=ledger, stages=Stages(ledger, run.console)), search_of(run)
        )


def computing_twice_as_much(run: Run, folder: Path) -> Run:
    """The run as it would have told of finalists that ask for controls of equal compute."""
    ledger = Ledger(folder)
    for event in run.ledger.events():
        if isinstance(event, TrialEnded):
            event = event.model_copy(update={"final": {**event.final, COMPUTE_OVER_CE: 2.0}})
        ledger.append(event)
    asked = but(run, budget={"equal_compute": "always"})
    return replace(asked, ledger=ledger, stages=Stages(ledger, run.console))


def longer_jobs(run: Run) -> list[TrainJob]:
    """What controls of equal compute would train."""
    search = search_of(run)
    finalists, controls = (run.ledger.trials(search=search, role=r) for r in (Role.FINALIST, Role.BASELINE))
    planned = controls_of_equal_compute_for(
        run.experiment, search=search, finalists=finalists, controls=controls
    )
    workbench = run.workbench(None)
    return [
        job
        for control in planned
        for job in repeat_jobs(control.spec, experiment=run.experiment, workbench=workbench)
    ]


def test_slots_are_needed_for_controls_of_equal_compute_until_all_have_ended(
    run: Run, tmp_path: Path
) -> None:
    """Those that failed are not trained again: a pick after it finds nothing to do."""
    asked = computing_twice_as_much(run, tmp_path / "told")
    search = search_of(asked)
    books, jobs = Bookkeeper(asked.ledger, search=search), longer_jobs(asked)
    assert jobs
    for job in jobs:
        assert picking.slots_are_needed(asked, search)
        books.started(job, parameters={})
        assert picking.slots_are_needed(asked, search)
        books.failed(job.job_id, "the loss is nan")
    assert not picking.slots_are_needed(asked, search)


def test_slots_are_needed_for_a_control_of_equal_compute_that_was_not_tested(
    run: Run, tmp_path: Path
) -> None:
    asked = computing_twice_as_much(run, tmp_path / "told")
    search = search_of(asked)
    books = Bookkeeper(asked.ledger, search=search)
    trials = []
    for job in longer_jobs(asked):
        books.started(job, parameters={})
        best = {"selection/accuracy": 0.5}
        end = Message(epoch=1, metrics=best, end=End.COMPLETED, best_epoch=1, best=best, checkpoint="w.st")
        books.reported(job.job_id, end)
        trials.append(job.job_id)
    assert picking.slots_are_needed(asked, search)
    figures = {trial: {"accuracy": 0.5} for trial in trials}
    asked.ledger.append(
        StageEvent(stage="test", key="of these", status="finished", seconds=1.0, result=figures)
    )
    assert not picking.slots_are_needed(asked, search)
