"""`stillhouse run`, `pick`, `record sync`, `export`: do what is left of an experiment, and show it."""

from __future__ import annotations

import shlex
import sys
from contextlib import redirect_stdout, suppress
from typing import TYPE_CHECKING, Final, Literal

import typer

from orchestrator.config.loading import LoadedExperiment, load_experiment
from orchestrator.config.overrides import Overrides
from trainables.config.checkpoints import is_pinned, is_tracked
from trainables.errors import Interrupted, StillhouseError

if TYPE_CHECKING:
    from orchestrator.records.summary import Summary
    from orchestrator.terminal.console import Console

Command = Literal["run", "pick", "record sync", "export"]
_AFTER_SEARCH: Final = ("pick", "export")


def complete(command: Command, experiment: str, overrides: Overrides, *, json_only: bool) -> None:
    """Do what the ledger lacks, and print the result; `pick` and `export` ask for a finished search.

    What only MLflow lacks withholds no results: they are shown, and the exit status is 1. `record sync`
    writes the ledger to MLflow from the first event on, whatever is there, and registers the champion of a
    run that is finished.

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
    if summary is None and command == "record sync":
        _record_unfinished(loaded, console)
        return
    try:
        if summary is None and after_search:
            finished.require_any_search(loaded)
            finished.require_somebody_fits(loaded)
        again = command == "record sync"
        if summary is None or finished.is_to_be_recorded(loaded, summary, console.info, always=again):
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


def _record_unfinished(loaded: LoadedExperiment, console: Console) -> None:
    from orchestrator.tracking.again import record_ledger

    recorded = record_ledger(loaded, console)
    refused = recorded["refused"]
    what = "the run is not finished and `stillhouse run` goes on with it"
    if recorded["status"] == "FINISHED":
        what = "the run was finished with other options than these, or files of it are gone; with these, "
        what += "`stillhouse run` finishes and registers it"
    console.info(f"MLflow has all {recorded['events']:,} events of the ledger in {recorded['out']}")
    console.info(f"note: {what}")
    if refused:
        console.info(f"warning: MLflow refused {refused:,} of the writes; the log says which")
    console.result(recorded)


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
    return shlex.join(["stillhouse", *command.split(), experiment, *overrides.options()])
