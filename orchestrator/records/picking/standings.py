"""Where each student stands among all: its rank, its Pareto front, and whether it meets the constraints.

MLflow computes none of these, so they are recorded as figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from orchestrator.config.constraints import Condition, violated
from orchestrator.config.picking.figures import ACCURACY
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.picking.champion import group_figures, trial_figures
from orchestrator.records.picking.choice import Candidates, candidate_figures
from orchestrator.records.picking.fronts import fronts
from orchestrator.records.selection import Group, group_trials, rank_trials, score_of

_WEIGHED: Final = (ACCURACY, "latency_ms", "params")
"""What fronts are of."""


class Standing(NamedTuple):
    """Of one student, or of a group of seeds."""

    rank: int
    """1 is the champion; each student has another one."""
    front: int
    """1 where no other student is at least as good in figure, latency and parameters, and better in one."""
    within_budget: bool
    """Whether it meets the constraints."""

    def figures(self) -> dict[str, float]:
        """As MLflow's metrics."""
        return {"rank": self.rank, "pareto": self.front, "within_budget": float(self.within_budget)}


def standings(
    candidates: Candidates, champion: TrialRecord, constraints: Sequence[Condition]
) -> dict[str, Standing]:
    """By trial id, of the search's completed trials and of finalists.

    Finalists rank before trials that were trained once: the champion first, then the seeds of its group by
    score, then the other groups by mean. Constraints and fronts take a finalist by the means of its group,
    and a trial of the search by its one seed.

    Raises:
        StillhouseError: a student was never measured.
    """
    costs = candidate_figures(candidates)
    ordered: list[str] = []
    figures: dict[str, Mapping[str, float]] = {}
    for group in _best_first(group_trials(candidates.finalists), champion):
        seeds = sorted(group.records, key=lambda r: (r.trial != champion.trial, -score_of(r), r.trial))
        ordered += [record.trial for record in seeds]
        figures |= dict.fromkeys([record.trial for record in seeds], group_figures(group, costs))
    for record in rank_trials(candidates.searched):
        ordered.append(record.trial)
        figures[record.trial] = trial_figures(record, costs)
    placed = fronts(figures, _WEIGHED)
    return {
        trial: Standing(rank, placed[trial], not violated(constraints, figures[trial]))
        for rank, trial in enumerate(ordered, start=1)
    }


def _best_first(groups: Sequence[Group], champion: TrialRecord) -> list[Group]:
    """The champion's group, then the others by their means."""
    return sorted(
        groups, key=lambda group: (champion not in group.records, -group.mean, group.records[0].trial)
    )
