"""Where no student meets the constraints: for each the nearest miss, what it would cost, and a refusal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pydantic import Field

from orchestrator.config.constraints import Condition, violated
from orchestrator.config.picking.figures import ACCURACY
from orchestrator.terminal.formatting import percent
from trainables.config import Config
from trainables.errors import StillhouseError

CLOSEST_NAMED: Final = 3

Figures = Mapping[str, Mapping[str, float]]
"""By student its figures, of which `selection_accuracy` is always one."""
Order = Callable[[str], tuple[Any, ...]]
"""By which students are sorted, the best first."""

COLUMNS: Final = (
    "constraint",
    "closest that meets the others",
    "it misses by",
    "its selection, %",
    "below the best, points",
    "best without the constraint",
    "its selection, %",
)


class NearestMiss(Config):
    """One constraint of several that no student meets together; accuracies are fractions."""

    constraint: str
    closest: str | None = Field(
        description="of the students that meet all the others the one that misses it by least; none where no "
        "student meets the others"
    )
    miss: str = Field(description="by how much, in words")
    figures: dict[str, float] = Field(description="of the closest, those that the constraint is about")
    selection_accuracy: float | None = Field(description="of the closest")
    accuracy_below_best: float | None = Field(
        description="the best of all students less the closest: what choosing that would cost"
    )
    without: str | None = Field(description="the best student if this constraint were dropped")
    without_accuracy: float | None


class NobodyFits(StillhouseError):
    """No student meets all constraints; `misses` has a row for each constraint."""

    exit_code = 2

    def __init__(self, text: str, misses: Sequence[NearestMiss]) -> None:
        super().__init__(text)
        self.misses = tuple(misses)
        self.facts = {"nearest_misses": [miss.plain() for miss in misses]}


def nobody_fits(everything: Figures, conditions: Sequence[Condition], order: Order) -> NobodyFits:
    """The refusal to choose; it names those that miss the constraints by least, and by how much."""

    def worst(name: str) -> tuple[Any, ...]:
        return max(each.distance(everything[name]) for each in conditions), order(name)

    closest = sorted(everything, key=worst)[:CLOSEST_NAMED]
    lines = [f"{name}: {_misses(everything[name], conditions)}" for name in closest]
    wanted = " and ".join(f"({each})" if " or " in str(each) else str(each) for each in conditions)
    text = (
        f"none of {len(everything)} students meets {wanted}; the closest: {'; '.join(lines)}. "
        f"Loosen the constraint, or search smaller students"
    )
    return NobodyFits(text, nearest_misses(everything, conditions, order))


def nearest_misses(everything: Figures, conditions: Sequence[Condition], order: Order) -> list[NearestMiss]:
    """For each condition who comes closest, and who would be chosen without it."""
    return [_nearest_miss(everything, conditions, place, order) for place in range(len(conditions))]


def _nearest_miss(
    everything: Figures, conditions: Sequence[Condition], place: int, order: Order
) -> NearestMiss:
    condition = conditions[place]
    others = [*conditions[:place], *conditions[place + 1 :]]
    # What is known only over the seeds may still turn out well where searched trials are asked.
    pool = [name for name in everything if all(each.may_hold(everything[name]) for each in others)]
    if not pool:
        return NearestMiss(
            constraint=str(condition),
            closest=None,
            miss="no student meets the others",
            figures={},
            selection_accuracy=None,
            accuracy_below_best=None,
            without=None,
            without_accuracy=None,
        )
    closest = min(pool, key=lambda name: (condition.distance(everything[name]), order(name)))
    without = min(pool, key=order)
    own, best = everything[closest], max(figures[ACCURACY] for figures in everything.values())
    return NearestMiss(
        constraint=str(condition),
        closest=closest,
        miss=condition.miss(own),
        figures={name: own[name] for name in sorted(condition.fields) if name in own},
        selection_accuracy=own[ACCURACY],
        accuracy_below_best=best - own[ACCURACY],
        without=without,
        without_accuracy=everything[without][ACCURACY],
    )


def miss_rows(misses: Sequence[NearestMiss]) -> list[tuple[str, ...]]:
    """Rows for a terminal, below `COLUMNS`."""
    return [
        (
            miss.constraint,
            miss.closest or "",
            miss.miss,
            "" if miss.selection_accuracy is None else percent(miss.selection_accuracy),
            "" if miss.accuracy_below_best is None else percent(miss.accuracy_below_best),
            miss.without or "",
            "" if miss.without_accuracy is None else percent(miss.without_accuracy),
        )
        for miss in misses
    ]


def _misses(figures: Mapping[str, float], conditions: Sequence[Condition]) -> str:
    return ", ".join(each.miss(figures) for each in violated(conditions, figures))
