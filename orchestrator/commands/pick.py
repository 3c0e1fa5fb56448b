"""`stillhouse pick`: another champion from the same search, by other constraints or figures."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.commands.completion import complete
from orchestrator.commands.options import (
    Experiment,
    Json,
    Out,
    Pareto,
    Rank,
    Space,
    Trials,
    Where,
    takes_fields,
)
from orchestrator.config.overrides import Overrides


@dataclass(frozen=True)
class PickOptions:
    """What is asked of the champion; where one is None, the file's value stays."""

    where: Where = None
    rank: Rank = None
    pareto: Pareto = None


@takes_fields("choice", PickOptions)
def pick(
    experiment: Experiment,
    choice: PickOptions,
    space: Space = None,
    out: Out = None,
    trials: Trials = None,
    json_only: Json = False,
) -> None:
    """Pick the champion of a finished search again, under other constraints; register and export it."""
    overrides = Overrides(space, out, trials, choice.where, rank=choice.rank, pareto=choice.pareto)
    complete("pick", experiment, overrides, json_only=json_only)
