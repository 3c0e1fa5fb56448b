"""The champion among finalists: within the constraints, on the front asked for, the best by a figure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.config.constraints import Condition, violated
from orchestrator.config.picking.figures import ACCURACY, cost_of
from orchestrator.records.compute import compute_over_ce, seconds_of
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.picking.fronts import fronts
from orchestrator.records.picking.nearest_miss import nobody_fits
from orchestrator.records.selection import Figures, Group, SelectedChampion
from trainables.config.metrics import AGREEMENT, ECE, KL_TO_TEACHER, NLL
from trainables.errors import StillhouseError

_BREAKS_TIES: Final = (ACCURACY, "params", "latency_ms")
"""By which students are told apart that are equal in the figure that ranks; last comes the name."""

_OF_BEST_EPOCH: Final = {
    "selection_nll": NLL,
    "selection_ece": ECE,
    "selection_agreement": AGREEMENT,
    "selection_kl_to_teacher": KL_TO_TEACHER,
}
"""By figure the metric of a student's best epoch that it is; not every student has all of them."""


@dataclass(frozen=True)
class Ranking:
    """How a champion is chosen among those that meet the constraints."""

    by: str = ACCURACY
    """The figure; the best first."""
    pareto: tuple[str, ...] = ()
    """With figures, only those on their first front are candidates."""


SPACE_RANKING: Final = Ranking()
"""By what the search space ranks by."""


def choose_champion(
    groups: Sequence[Group],
    figures: Figures,
    constraints: Sequence[Condition],
    ranking: Ranking = SPACE_RANKING,
) -> SelectedChampion:
    """The best group among those that meet the constraints, which apply to means over its seeds.

    `figures` are costs by trial id, and whatever else is known of a group under the name of its
    representative. Ties go to the better accuracy, then fewer parameters, then lower latency, then the trial
    id, and the result says so. A group that lost a seed competes only when no group has more seeds: a mean
    over fewer seeds is more easily lucky.

    Raises:
        NobodyFits: no group meets the constraints.
        StillhouseError: there is no group, or none has the figures that are asked for.
    """
    if not groups:
        raise StillhouseError(
            "no finalist was completed, so there is no champion; see the reasons in the ledger"
        )
    by_name = {group.representative.trial: group for group in groups}
    everything = {name: group_figures(group, figures) for name, group in by_name.items()}
    order = order_by(ranking.by, everything)
    allowed = [name for name in by_name if not violated(constraints, everything[name])]
    if not allowed:
        raise nobody_fits(everything, constraints, order)
    seeds = max(by_name[name].n for name in allowed)
    candidates = [name for name in allowed if by_name[name].n == seeds]
    if ranking.pareto:
        placed = fronts({name: everything[name] for name in candidates}, ranking.pareto)
        candidates = [name for name in candidates if placed.get(name) == 1]
    candidates = [name for name in candidates if ranking.by in everything[name]]
    if not candidates:
        asked = ", ".join(dict.fromkeys((ranking.by, *ranking.pareto)))
        raise StillhouseError(
            f"no finalist has all of the figures that are asked for ({asked}): an earlier version did not "
            "measure them, or there was one seed alone; rank by others"
        )
    first, *rest = sorted(candidates, key=order)
    tie = _tie(first, rest[0], ranking.by, everything) if rest else None
    return SelectedChampion(group=by_name[first], record=by_name[first].representative, tie=tie)


def group_figures(group: Group, figures: Figures) -> dict[str, float]:
    """All figures of a group by which it may be chosen: its costs, and means over its seeds.

    Raises:
        StillhouseError: its student was never measured.
    """
    costs = _costs(group.representative, figures)
    bests = [record.best for record in group.records]
    epochs = group.records[0].spec.get("training", {}).get("epochs")
    found: dict[str, float | None] = {
        ACCURACY: group.mean,
        "selection_std": group.std,
        **{name: _mean([best.get(metric) for best in bests]) for name, metric in _OF_BEST_EPOCH.items()},
        "seconds": seconds_of(group.records),
        "epochs": epochs,
    }
    known = {key: float(value) for key, value in found.items() if value is not None}
    return {**costs, **known}


def trial_figures(record: TrialRecord, figures: Figures) -> dict[str, float]:
    """The same of one student: its costs, and what it reached with its one seed.

    Raises:
        StillhouseError: it was never measured.
    """
    costs = _costs(record, figures)
    found: dict[str, float | None] = {
        ACCURACY: record.score,
        **{name: record.best.get(metric) for name, metric in _OF_BEST_EPOCH.items()},
        "seconds": record.seconds or None,
        "epochs": record.spec.get("training", {}).get("epochs"),
        "compute_over_ce": compute_over_ce(record),
    }
    known = {key: float(value) for key, value in found.items() if value is not None}
    return {**costs, **known}


def _costs(record: TrialRecord, figures: Figures) -> Mapping[str, float]:
    if record.trial not in figures:
        raise StillhouseError(f"trial {record.trial} was never profiled; measure its student before ranking")
    return figures[record.trial]


def order_by(figure: str, everything: Mapping[str, Mapping[str, float]]) -> Callable[[str], tuple[Any, ...]]:
    """By which names are sorted, the best first by that figure; those without it come last."""

    def order(name: str) -> tuple[Any, ...]:
        own = everything[name]
        ranked = (0, cost_of(figure, own[figure])) if figure in own else (1, 0.0)
        return (*ranked, *(cost_of(each, own[each]) for each in _BREAKS_TIES), name)

    return order


def _tie(first: str, second: str, figure: str, everything: Mapping[str, Mapping[str, float]]) -> str | None:
    """What told the first two apart, where the figure that ranks did not; none where it did."""
    one, other = everything[first], everything[second]
    if one[figure] != other[figure]:
        return None
    by = next((name for name in _BREAKS_TIES if one[name] != other[name]), None)
    decided = (
        "by its name, since all else is equal"
        if by is None
        else f"by its {by}, {one[by]:.6g} against {other[by]:.6g}"
    )
    return f"{first} and {second} are equal in {figure} ({one[figure]:.6g}); {first} comes first {decided}"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None
