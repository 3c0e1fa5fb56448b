"""Whether an experiment's budget is one that the search of its space can keep."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.config.schema import ExperimentConfig
from orchestrator.config.validation_messages import Problem
from search_spaces.space import SpaceConfig


def budget_problems(config: ExperimentConfig, space: SpaceConfig) -> Iterator[Problem]:
    """A grid without room for its points; objectives compared with unequal trials, or without a finalist."""
    budget, objectives = config.budget, len(space.objective_names)
    if space.search.algorithm == "grid" and (size := space.grid_size()) > budget.trials:
        text = f"found {budget.trials}; the grid of space {space.name} has {size} points: allow them"
        yield Problem(("budget", "trials"), text)
    if not space.search.each_objective:
        return
    compared = f"search.each_objective of space {space.name} compares {objectives} objectives"
    if rest := budget.trials % objectives:
        fewer, more = budget.trials - rest, budget.trials - rest + objectives
        allowed = f"{fewer} or {more}" if fewer else str(more)
        text = f"found {budget.trials}; {compared}, each with as many trials: take {allowed}"
        yield Problem(("budget", "trials"), text)
    if budget.finalists < objectives:
        text = f"found {budget.finalists}; {compared}, the best of each a finalist: allow {objectives}"
        yield Problem(("budget", "finalists"), text)
