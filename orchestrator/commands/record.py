"""`stillhouse record`: MLflow's record of a finished run, written again from the ledger."""

from __future__ import annotations

from orchestrator.commands.completion import complete
from orchestrator.commands.options import Experiment, Finalists, Json, Out, Space, Trials
from orchestrator.config.overrides import Overrides


def record(
    experiment: Experiment,
    space: Space = None,
    out: Out = None,
    trials: Trials = None,
    finalists: Finalists = None,
    json_only: Json = False,
) -> None:
    """Write MLflow's record of a finished run again, as after a server lost it; nothing is trained."""
    overrides = Overrides(space, out, trials, finalists=finalists)
    complete("record", experiment, overrides, json_only=json_only)
