"""`stillhouse run`, `pick`, `record`, `export`: do what is left of an experiment, and show what came."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from typing import TYPE_CHECKING, Final, Literal

import typer

from orchestrator.config.loading import LoadedExperiment, load_experiment
from orchestrator.config.overrides import Overrides
from trainables.config.checkpoints import is_pinned, is_tracked
from trainables.errors import Interrupted, StillhouseError

if TYPE_CHECKING:
    from orchestrator.records.summary import Summary

Command = Literal["run", "pick", "record", "export"]
_AFTER_SEARCH: Final = ("pick", "export")


def complete(command: Command, experiment: str, overrides: Overrides, *, json_only: bool) -> None:
    """Do what the ledger lacks, and print the result; `pick` and `export` ask for a finished search.

    What only MLflow lacks withholds no results: they are shown, and the exit status is 1. `record` asks for
    a run that is finished, and writes its ledger to MLflow from the first event on, whatever is there.

    Raises:
        StillhouseError: as `run_experiment` says; the message names the command that goes on.
        typer.Exit: MLflow lacks something.
    """
    loaded = _with_versions(load_experiment(experiment, overrides=overrides))
    after_search = command in _AFTER_SEARCH
    from orchestrator.pipeline import finished
    from orchestrator.records.picking.nearest_miss import COLUMNS, NobodyFits, miss_rows
    from orchestrator.records.summary import lacking
    from orchestrator.terminal.console import Console

    console = Console(json_only=json_only)
    summary = known = finished.finished_summary(loaded)
    if summary is None:
        _require_what_goes_before(command, loaded)
    try:
        if summary is None and after_search:
            finished.require_somebody_fits(loaded)
        if summary is None or _is_to_be_recorded(command, loaded, summary, console.info):
            from orchestrator.pipeline.run import run_experiment

            # Ray writes notices to standard output, where programs read JSON.
            with redirect_stdout(sys.stderr if json_only else sys.stdout):
                summary = run_experiment(
                    loaded,
                    console,
                    resume_command=command_line(command, experiment, overrides),
                    search_must_exist=after_search,
                )
    except StillhouseError as error:
        if isinstance(error, NobodyFits):
            console.table("no student meets all constraints", COLUMNS, miss_rows(error.misses))
        if known is None or isinstance(error, Interrupted):
            raise
        summary = lacking(known, str(error))
    finished.show(summary, console, ui_command=command_line("ui", experiment, Overrides(out=overrides.out)))
    console.result(summary.plain())
    _require_record(summary)


def _require_what_goes_before(command: str, loaded: LoadedExperiment) -> None:
    """Refuse a command that needs a search, or a run, that is finished, where there is none."""
    from orchestrator.pipeline import finished

    if command in _AFTER_SEARCH:
        finished.require_any_search(loaded)
    if command == "record":
        raise finished.unfinished(loaded)


def _is_to_be_recorded(
    command: str, loaded: LoadedExperiment, summary: Summary, tell: Callable[[str], None]
) -> bool:
    from orchestrator.pipeline import finished

    return finished.is_to_be_recorded(loaded, summary, tell, always=command == "record")


def _with_versions(loaded: LoadedExperiment) -> LoadedExperiment:
    """The experiment as a finished run noted it, with versions in the place of MLflow's aliases.

    Where MLflow does not tell them it is left as it is: the run, if one is needed, says why.
    """
    named = [loaded.config.student.checkpoint, *(each.checkpoint for each in loaded.config.each_teacher)]
    if all(name is None or not is_tracked(name) or is_pinned(name) for name in named):
        return loaded
    from orchestrator.pipeline.brought_weights import pinned

    with suppress(StillhouseError):
        return pinned(loaded)
    return loaded


def _require_record(summary: Summary) -> None:
    """End with status 1 where MLflow lacks something; programs have read of it in the summary."""
    if summary.mlflow.lacks is not None:
        lacks = f"the results are in {summary.out}, and not all in MLflow: {summary.mlflow.lacks}"
        typer.echo(f"error: {lacks}", err=True)
        raise typer.Exit(1)


def command_line(command: str, experiment: str, overrides: Overrides) -> str:
    """A command as one would type it."""
    return shlex.join(["stillhouse", command, experiment, *overrides.options()])
