"""`stillhouse record sync`: MLflow's record of a run, written again from its ledger."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

import typer

from orchestrator.commands.completion import complete
from orchestrator.commands.options import (
    Experiment,
    Finalists,
    Json,
    Out,
    Space,
    Trials,
    takes_fields,
    takes_pair,
)
from orchestrator.commands.pick import PickOptions
from orchestrator.config.overrides import Overrides

app: Final = typer.Typer(
    name="record",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="What MLflow shows of a run: written again from the ledger, as into an empty store.",
    epilog="Example: stillhouse record sync digits",
)


@app.callback()
def _record() -> None:
    """What MLflow shows of a run: written again from the ledger, as into an empty store."""


@dataclass(frozen=True)
class RecordOptions(PickOptions):
    """What the run was given, or the command that picked again."""

    space: Space = None
    out: Out = None
    trials: Trials = None
    finalists: Finalists = None


@app.command(epilog="Example: stillhouse record sync digits")
@takes_pair()
@takes_fields("options", RecordOptions)
def sync(experiment: Experiment, options: RecordOptions, json_only: Json = False) -> None:
    """Write the whole ledger to MLflow, as after a server lost its record; nothing is trained.

    A run that is not finished is recorded as far as it came. What is there already is not written twice.
    """
    complete("record sync", experiment, Overrides(**asdict(options)), json_only=json_only)
