"""Constraints that nobody meets are told from the ledger, before torch, Ray or MLflow is imported."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.config.constraints import parse_constraints
from orchestrator.config.schema import ExperimentConfig
from orchestrator.records.events import FiguresAdded
from orchestrator.records.ledger import Ledger, TrialRecord
from orchestrator.records.picking.choice import Candidates, choose
from orchestrator.records.selection import FIELDS_OF_COSTS, choose_finalists
from trainables.config import Role


def require_somebody(
    ledger: Ledger, experiment: ExperimentConfig, search: str, *, each_objective: bool
) -> None:
    """Refuse to pick where it is known that no student of a finished search meets the constraints.

    Nothing is said where costs, or seeds of a finalist, are still to be found: the run itself looks then.

    Raises:
        NobodyFits: none does.
        StillhouseError: no trial was completed, or none has the figures that are asked for.
    """
    searched = ledger.trials(search=search, role=Role.SEARCH)
    costs = _costs(ledger)
    if any(record.trial not in costs for record in _completed(searched)):
        return
    where, budget = experiment.pick.where, experiment.budget
    conditions = parse_constraints(where) if where else ()
    chosen = choose_finalists(searched, costs, conditions, budget.finalists, each_objective=each_objective)
    finalists = _completed(ledger.trials(search=search, role=Role.FINALIST))
    repeated = [[each for each in finalists if each.repeats == one.trial] for one in chosen]
    if any(len(seeds) != budget.seeds for seeds in repeated):
        return
    of_chosen = [record for seeds in repeated for record in seeds]
    if any(record.trial not in costs for record in of_chosen):
        return
    controls = _completed(ledger.trials(search=search, role=Role.BASELINE))
    choose(experiment.pick, Candidates(searched, of_chosen, controls, costs))


def _completed(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    return [record for record in records if record.status == "completed"]


def _costs(ledger: Ledger) -> dict[str, dict[str, float]]:
    """By trial what it costs, as it was told last; figures of the test split beside them are left out."""
    return {
        event.trial: {name: float(v) for name, v in event.figures.items() if name in FIELDS_OF_COSTS}
        for event in ledger.events_of(FiguresAdded)
        if event.trial is not None and event.figures.keys() >= {"params", "latency_ms"}
    }
