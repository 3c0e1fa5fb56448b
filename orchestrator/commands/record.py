"""`stillhouse record`: MLflow's record of a finished run, written again from the ledger."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from orchestrator.commands.completion import complete
from orchestrator.commands.options import (
    Experiment,
    Finalists,
    Json,
    Out,
    Space,
    Trials,
    takes_fields,
)
from orchestrator.commands.pick import PickOptions
from orchestrator.config.overrides import Overrides


@dataclass(frozen=True)
class RecordOptions(PickOptions):
    """What the run was given, or the command that picked again."""

    space: Space = None
    out: Out = None
    trials: Trials = None
    finalists: Finalists = None


@takes_fields("options", RecordOptions)
def record(experiment: Experiment, options: RecordOptions, json_only: Json = False) -> None:
    """Write MLflow's record of a finished run again, as after a server lost it; nothing is trained."""
    complete("record", experiment, Overrides(**asdict(options)), json_only=json_only)
