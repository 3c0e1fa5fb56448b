"""The champion that an experiment asks for, and by what it was chosen; needs neither torch nor Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.config.constraints import parse_constraints
from orchestrator.config.picking.figures import ACCURACY, figures_named
from orchestrator.config.schema import PickConfig
from orchestrator.records.compute import compute_over_ce
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.picking.champion import Ranking, choose_champion, group_figures, trial_figures
from orchestrator.records.picking.picked import Picked, placed
from orchestrator.records.relations import control_of
from orchestrator.records.selection import (
    Figures,
    Group,
    SelectedChampion,
    group_trials,
    paired_difference,
    rank_trials,
)


@dataclass(frozen=True)
class Chosen:
    """The champion, and by what it was chosen."""

    champion: SelectedChampion
    picked: Picked


@dataclass(frozen=True)
class Candidates:
    """Students of one search, with the costs of each by trial id."""

    searched: Sequence[TrialRecord]
    finalists: Sequence[TrialRecord]
    """Completed ones."""
    controls: Sequence[TrialRecord]
    """Likewise."""
    costs: Figures


def choose(pick: PickConfig, candidates: Candidates) -> Chosen:
    """The champion among the finalists, by figures of the selection split and costs alone.

    Raises:
        NobodyFits: none of them meets the constraints.
        StillhouseError: there is none, or none has the figures that are asked for.
    """
    ranking = Ranking(pick.rank or ACCURACY, figures_named(pick.pareto) if pick.pareto else ())
    groups, figures = group_trials(candidates.finalists), candidate_figures(candidates)
    conditions = parse_constraints(pick.where) if pick.where else ()
    champion = choose_champion(groups, figures, conditions, ranking)
    picked = Picked(where=pick.where, rank=ranking.by, pareto=ranking.pareto, tie=champion.tie)
    if ranking.pareto:
        of_groups = {group.representative.trial: group_figures(group, figures) for group in groups}
        of_trials = {
            record.trial: trial_figures(record, figures) for record in rank_trials(candidates.searched)
        }
        picked = picked.with_overrides(
            finalists=placed(of_groups, ranking), trials=placed(of_trials, ranking)
        )
    return Chosen(champion, picked)


def candidate_figures(candidates: Candidates) -> dict[str, Mapping[str, float]]:
    """By trial id its costs; of the seed that would be exported also what is known of its group alone."""
    students = [*candidates.controls, *candidates.finalists]
    figures: dict[str, Mapping[str, float]] = dict(candidates.costs)
    for group in group_trials(candidates.finalists):
        name = group.representative.trial
        figures[name] = {**figures[name], **_beyond_costs(group, students)}
    return figures


def _beyond_costs(group: Group, students: Sequence[TrialRecord]) -> dict[str, float]:
    """Its gain on the selection split, where it has a control but itself, and what its epochs compute."""
    compute = compute_over_ce(group.records[0])
    found = {} if compute is None else {"compute_over_ce": compute}
    control = control_of(group.records[0], students)
    is_own = {record.trial for record in control.records} & {record.trial for record in group.records}
    if is_own or not set(control.seeds) & set(group.seeds):
        return found
    own, its = (dict(zip(each.seeds, each.scores, strict=True)) for each in (group, control))
    gain = paired_difference(own, its)
    found["selection_gain"] = gain.mean
    return found if gain.low is None else {**found, "selection_gain_low": gain.low}
