"""Parallel coordinates of a search: one line a trial, one axis a hyper-parameter, what ranks them last."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from orchestrator.records.ledger import TrialRecord
from orchestrator.records.selection import rank_trials, score_of
from orchestrator.reports.charts.chart import Chart, Key, in_two_sizes
from orchestrator.reports.charts.palette import QUIET, RAMP_STEPS, Look, hexadecimal
from orchestrator.reports.charts.search_axes import SearchAxis, axis_of, search_axes, searched_row
from orchestrator.reports.charts.svg import NO_TIPS, Tips, axes_of
from orchestrator.reports.run_facts import RunFacts
from orchestrator.terminal.formatting import percent, short_parameters

MAX_LINES: Final = 1000
FEW_LINES: Final = 200
"""More are drawn thinner."""
MAX_AXES: Final = 12
"""Beside that of the figure; more would stand too close to read."""
ABSENT_HEIGHT: Final = -0.12


class TrialLine(NamedTuple):
    """One trial: where it stands on each axis, 0 to 1, and below where it has no such value."""

    heights: list[float]
    colour: str
    width: float
    tip: str


class Parallel(NamedTuple):
    """All that the chart shows."""

    axes: list[SearchAxis]
    lines: list[TrialLine]
    """In the order in which they are drawn, the best trial last."""
    left_out: int
    """Parameters that have no axis, since there are too many and fewer trials have them."""


def parallel_of(facts: RunFacts) -> Parallel | None:
    """Completed trials coloured by what ranks them, pruned ones in grey; none if nothing varied."""
    completed = rank_trials(facts.records)[:MAX_LINES]
    pruned = [r for r in facts.records if r.status == "pruned" and r.score is not None]
    pruned = pruned[: MAX_LINES - len(completed)]
    searched = search_axes([*completed, *pruned], facts.log_domains)
    axes = _commonest(searched, [*completed, *pruned])
    score = axis_of(f"selection {facts.rank_by.label}, %", [100 * score_of(r) for r in completed], log=False)
    if not completed or not axes:
        return None
    thin = 1.6 if len(completed) <= FEW_LINES else 0.8
    lines = [_line(record, axes, score, "quiet", thin / 1.6) for record in pruned]
    for record in reversed(completed):  # the best are drawn last, on top
        # Where all score the same, or one alone was completed, there is no axis of scores.
        height = 1.0 if score is None else score.height(100 * score_of(record))
        colour = f"ramp-{round(height * (RAMP_STEPS - 1))}"
        lines.append(_line(record, axes, score, colour, 4.0 if record is completed[0] else thin))
    return Parallel([*axes, *([score] if score else [])], lines, len(searched) - len(axes))


def search_chart(facts: RunFacts) -> Chart | None:
    """The chart; on narrow screens its axes lie below each other."""
    parallel = parallel_of(facts)
    if parallel is None:
        return None
    names = ", ".join(axis.name for axis in parallel.axes)
    label = f"Parallel coordinates of {len(parallel.lines)} trials; axes: {names}"
    narrow_height = 60 + 74 * (len(parallel.axes) - 1) + 40
    panel = in_two_sizes(
        "search", label, (480, narrow_height), lambda figure, is_narrow: _paint(figure, parallel, is_narrow)
    )
    keys = [
        Key(f"the best {facts.rank_by.label}", Look(f"ramp-{RAMP_STEPS - 1}", "o"), "line"),
        Key("the middle", Look(f"ramp-{RAMP_STEPS // 2}", "o"), "line"),
        Key("the worst", Look("ramp-0", "o"), "line"),
    ]
    keys += [Key("stopped early", QUIET, "line")] if len(parallel.lines) > len(_done(facts)) else []
    return Chart("search", [panel], keys)


def _done(facts: RunFacts) -> list[TrialRecord]:
    return rank_trials(facts.records)[:MAX_LINES]


def _commonest(axes: Sequence[SearchAxis], records: Sequence[TrialRecord]) -> list[SearchAxis]:
    """As many axes as can be read: those that most trials have a value on, in their order."""
    counts = Counter(name for record in records for name in searched_row(record))
    kept = sorted(axes, key=lambda axis: -counts[axis.name])[:MAX_AXES]
    return [axis for axis in axes if axis in kept]


def _line(
    record: TrialRecord, axes: Sequence[SearchAxis], score: SearchAxis | None, colour: str, width: float
) -> TrialLine:
    row = searched_row(record)
    heights = [ABSENT_HEIGHT if row.get(axis.name) is None else axis.height(row[axis.name]) for axis in axes]
    if score is not None:
        # A stopped trial had a smaller budget: its figure does not compare.
        done = record.status == "completed"
        heights.append(score.height(100 * score_of(record)) if done else ABSENT_HEIGHT)
    told = (
        f"{record.trial} ({record.status}): {percent(score_of(record))} %\n"
        f"{record.objective}: {short_parameters(record.parameters)}"
    )
    return TrialLine(heights, colour, width, told)


def _paint(figure: Figure, parallel: Parallel, is_narrow: bool) -> Tips:
    places = list(range(len(parallel.axes)))
    if is_narrow:
        axes = axes_of(figure, left=24, right=24, top=44, bottom=30)
        axes.set(xlim=(-0.16, 1.05), ylim=(len(places) - 0.9, -0.1))
    else:
        axes = axes_of(figure, left=40, right=76, top=72, bottom=16)
        axes.set(xlim=(0, len(places) - 1), ylim=(-0.18, 1.05))
    axes.set_axis_off()
    axes.add_collection(
        LineCollection(
            [
                list(zip(line.heights, places, strict=True))
                if is_narrow
                else list(zip(places, line.heights, strict=True))
                for line in parallel.lines
            ],
            colors=[hexadecimal(line.colour) for line in parallel.lines],
            linewidths=[line.width for line in parallel.lines],
            gid="trials",
            clip_on=False,
        )
    )
    for place, axis in zip(places, parallel.axes, strict=True):
        (_paint_lying if is_narrow else _paint_standing)(axes, place, axis)
    # Nobody hovers over a phone.
    return (
        NO_TIPS if is_narrow or len(parallel.lines) < 2 else {"trials": [line.tip for line in parallel.lines]}
    )


def _paint_standing(axes: Axes, place: int, axis: SearchAxis) -> None:
    axes.plot([place, place], [0, 1], color=hexadecimal("soft"), lw=1.2, clip_on=False)
    # Neighbours would overlap: a name breaks where its words do.
    name = re.sub(r"([_. ])", r"\1\n", axis.title)
    axes.text(place, 1.07, name, ha="center", va="bottom", fontweight="bold", fontsize=12, clip_on=False)
    for height, label in axis.ticks():
        _label(axes, (place, height), label, (5, 0), ha="left", va="center")


def _paint_lying(axes: Axes, place: int, axis: SearchAxis) -> None:
    axes.plot([0, 1], [place, place], color=hexadecimal("soft"), lw=1.2, clip_on=False)
    axes.annotate(
        axis.title,
        (0, place),
        xytext=(0, 20),
        textcoords="offset pixels",
        ha="left",
        va="bottom",
        fontweight="bold",
        annotation_clip=False,
        bbox={"facecolor": hexadecimal("paper"), "edgecolor": "none", "alpha": 0.85, "pad": 1},
    )
    ticks = axis.ticks()
    # Of many members only the first and the last have room.
    for height, label in ticks if len(ticks) <= 5 else (ticks[0], ticks[-1]):
        side = "left" if height == 0 else "right" if height == 1 else "center"
        _label(axes, (height, place), label, (0, 5), ha=side, va="bottom")


def _label(
    axes: Axes, at: tuple[float, float], text: str, offset: tuple[float, float], *, ha: str, va: str
) -> None:
    axes.annotate(
        text,
        at,
        xytext=offset,
        textcoords="offset pixels",
        ha=ha,
        va=va,
        fontsize=11,
        annotation_clip=False,
        bbox={"facecolor": hexadecimal("paper"), "edgecolor": "none", "alpha": 0.8, "pad": 0.8},
    )
