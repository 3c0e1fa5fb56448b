"""Where each student stands among all: its rank, its Pareto front, and whether it meets the constraints.

MLflow computes none of these, so they are recorded as figures. Pure functions of records and costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from orchestrator.config.constraints import Constraint, violated
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.selection import Figures, Group, rank_trials, score_of

COSTS: Final = ("latency_ms", "params")
"""What a front weighs beside the figure that ranks: the less the better."""


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


def fronts(costs: Sequence[Sequence[float]]) -> list[int]:
    """The Pareto front of each point, from 1 on; in each column less is better.

    The first front is what no other point beats, the second what none but the first does, and so on
    (non-dominated sorting: Deb et al., NSGA-II, 2002, section III A). Equal points share a front.
    """
    distinct, inverse = np.unique(np.asarray(costs, dtype=float), axis=0, return_inverse=True)
    found = np.zeros(len(distinct), dtype=int)
    # Sorted by their columns nobody is beaten by a later one, so the first front of which no member beats a
    # point is its own (efficient non-dominated sort: Zhang et al., 2015).
    members: list[list[int]] = []
    for index, point in enumerate(distinct):
        front = next(
            (n for n, own in enumerate(members) if not (distinct[own] <= point).all(axis=1).any()),
            len(members),
        )
        if front == len(members):
            members.append([])
        members[front].append(index)
        found[index] = front + 1
    return [int(found[place]) for place in np.ravel(inverse)]


def standings(
    searched: Sequence[TrialRecord],
    groups: Sequence[Group],
    champion: TrialRecord,
    costs: Figures,
    constraints: Sequence[Constraint],
) -> dict[str, Standing]:
    """By trial id, of the search's completed trials and of finalists; `groups` are the finalists'.

    Finalists rank before trials that were trained once: the champion first, then the seeds of its group by
    score, then the other groups by mean. What a constraint on accuracy is about, and what a front weighs, is
    the mean of its group for a finalist, and the one score of a trial of the search.

    Raises:
        KeyError: a student without costs.
    """
    ordered, claims = _ordered(searched, groups, champion)
    points = {trial: [-claim, *(costs[trial][name] for name in COSTS)] for trial, claim in claims.items()}
    front_of = dict(zip(points, fronts(list(points.values())), strict=True)) if points else {}
    return {
        trial: Standing(
            rank,
            front_of[trial],
            not violated(constraints, {**costs[trial], "selection_accuracy": claims[trial]}),
        )
        for rank, trial in enumerate(ordered, start=1)
    }


def _ordered(
    searched: Sequence[TrialRecord], groups: Sequence[Group], champion: TrialRecord
) -> tuple[list[str], Mapping[str, float]]:
    """Trial ids, best first, and by trial id what is claimed of it."""
    first = sorted(
        groups, key=lambda group: (champion not in group.records, -group.mean, group.records[0].trial)
    )
    ordered: list[str] = []
    claims: dict[str, float] = {}
    for group in first:
        seeds = sorted(group.records, key=lambda r: (r.trial != champion.trial, -score_of(r), r.trial))
        ordered += [record.trial for record in seeds]
        claims |= dict.fromkeys([record.trial for record in seeds], group.mean)
    for record in rank_trials(searched):
        ordered.append(record.trial)
        claims[record.trial] = score_of(record)
    return ordered, claims
