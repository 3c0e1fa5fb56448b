"""By what a champion was chosen, and where each student stands, as the summary keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import Field

from orchestrator.config.picking.figures import ACCURACY
from orchestrator.records.picking.champion import Ranking, order_by
from orchestrator.records.picking.fronts import fronts
from orchestrator.terminal.formatting import counted, percent
from trainables.config import Config

TOP: Final = 20
"""Trials that the table on a terminal has; `--json` has all."""


class Placed(Config):
    """One student among others, by the figures that make the fronts."""

    trial: str = Field(description="of a finalist the seed that would be exported")
    front: int | None = Field(description="from 1; none where a figure is not known")
    figures: dict[str, float] = Field(description="those that are known; accuracies are fractions")


class Picked(Config):
    """What was asked of the champion, and what told it from the others."""

    where: str | None = Field(None, description="the constraints, as they were given")
    rank: str = Field(ACCURACY, description="the figure by which the champion is the best")
    pareto: tuple[str, ...] = Field((), description="the figures of the fronts")
    tie: str | None = Field(None, description="what told the champion from one as good, in a sentence")
    finalists: tuple[Placed, ...] = Field((), description="by front, then by the figure that ranks")
    trials: tuple[Placed, ...] = Field((), description="all completed trials of the search, likewise")

    @property
    def says_nothing(self) -> bool:
        """Whether the champion is simply the best finalist, and no other is as good."""
        return self == Picked()


def placed(everything: Mapping[str, Mapping[str, float]], ranking: Ranking) -> tuple[Placed, ...]:
    """Each student with its front, the first front first, and within one the best by the ranking first."""
    known = fronts(everything, ranking.pareto)
    order = order_by(ranking.by, everything)
    last = len(everything) + 1
    return tuple(
        Placed(
            trial=name,
            front=known.get(name),
            figures={each: everything[name][each] for each in ranking.pareto if each in everything[name]},
        )
        for name in sorted(everything, key=lambda name: (known.get(name, last), *order(name)))
    )


def told(picked: Picked) -> list[str]:
    """In sentences by what the champion was chosen."""
    within = f" that meet {picked.where}" if picked.where else ""
    front = f" on the first front by {', '.join(picked.pareto)}" if picked.pareto else ""
    sentences = []
    if picked.rank != ACCURACY or picked.pareto or picked.where:
        sentences.append(f"The champion is the best by {picked.rank} of the finalists{within}{front}.")
    if picked.tie is not None:
        sentences.append(f"A tie: {picked.tie}.")
    return sentences


def front_table(
    title: str, students: Sequence[Placed], names: Sequence[str], top: int | None = TOP
) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    """Title, columns and rows for a terminal."""
    shown = students[:top]
    some = f", the first {len(shown)} of {len(students)}" if len(shown) < len(students) else ""
    without = sum(each.front is None for each in students)
    lacks = f"; {counted(without, 'student')} without all of these figures" if without else ""
    columns = ("front", "student", *(f"{name}, %" if name == ACCURACY else name for name in names))
    rows = [
        (
            "" if each.front is None else str(each.front),
            each.trial,
            *(_cell(name, each.figures.get(name)) for name in names),
        )
        for each in shown
    ]
    return f"fronts of {title} by {', '.join(names)}{some}{lacks}", columns, rows


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return percent(value) if name == ACCURACY else f"{value:,.6g}"
