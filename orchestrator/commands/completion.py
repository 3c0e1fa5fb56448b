"""`stillhouse run` and `stillhouse pick`: do what is left of an experiment, and show what came of it."""

from __future__ import annotations

import shlex
import sys
from contextlib import redirect_stdout
from typing import Literal

from orchestrator.config.loading import load_experiment
from orchestrator.config.overrides import Overrides


def complete(
    command: Literal["run", "pick"], experiment: str, overrides: Overrides, *, json_only: bool
) -> None:
    """Do what the ledger lacks, and print the result; `pick` asks for a search that is finished.

    Raises:
        StillhouseError: as `run_experiment` says; the message names the command that goes on.
    """
    loaded = load_experiment(experiment, overrides=overrides)
    from orchestrator.pipeline.finished import finished_summary, require_any_search, show
    from orchestrator.terminal.console import Console

    console = Console(json_only=json_only)
    summary = finished_summary(loaded)
    if summary is None:
        if command == "pick":
            require_any_search(loaded)
        from orchestrator.pipeline.run import run_experiment

        # Ray writes notices to standard output, where programs read JSON.
        with redirect_stdout(sys.stderr if json_only else sys.stdout):
            summary = run_experiment(
                loaded,
                console,
                resume_command=command_line(command, experiment, overrides),
                search_must_exist=command == "pick",
            )
    show(summary, console, ui_command=command_line("ui", experiment, Overrides(out=overrides.out)))
    console.result(summary.plain())


def command_line(command: str, experiment: str, overrides: Overrides) -> str:
    """A command as one would type it."""
    return shlex.join(["stillhouse", command, experiment, *overrides.options()])
