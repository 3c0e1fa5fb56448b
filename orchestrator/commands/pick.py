"""`stillhouse pick`: another champion from the same search, by other constraints or figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

import typer

from orchestrator.commands.completion import complete
from orchestrator.commands.options import Experiment, Json, Out, Space, Trials, takes_fields
from orchestrator.config.overrides import Overrides
from orchestrator.config.picking.figures import FIGURES

_WHERE: Final = (
    'Constraints with and, or and parentheses, as "latency_ms <= 2 and accuracy >= 0.9". '
    f"Figures: {', '.join(FIGURES)}; accuracies are of the selection split, means over seeds."
)


@dataclass(frozen=True)
class PickOptions:
    """What is asked of the champion; where one is None, the file's value stays."""

    where: Annotated[str | None, typer.Option(help=_WHERE)] = None
    rank: Annotated[
        str | None,
        typer.Option(help="The figure by which the best is chosen, in the direction that is better."),
    ] = None
    pareto: Annotated[
        str | None,
        typer.Option(help="Choose from the first front by these figures, as accuracy,latency_ms,params."),
    ] = None


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
