"""What ranks students by epoch: the mean over the seeds of each group, with a band of one deviation."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from orchestrator.records.events import EpochEnded, Event
from orchestrator.reports.charts.chart import Chart, Key, Table, dash_pattern, in_two_sizes
from orchestrator.reports.charts.groups import ChartGroup, groups_of, teachers_selection
from orchestrator.reports.charts.palette import TEACHER, hexadecimal
from orchestrator.reports.charts.scales import room_above
from orchestrator.reports.charts.svg import Tips, axes_of
from orchestrator.reports.run_facts import RunFacts
from orchestrator.terminal.formatting import percent

TABLE_ROWS: Final = 20
"""Epochs in the table below the chart, at most; the last one is always there."""


class Curve(NamedTuple):
    """A group's figure by epoch: over those epochs that all its seeds have."""

    group: ChartGroup
    epochs: list[int]
    means: list[float]
    """In per cent."""
    stds: list[float] | None
    """Sample standard deviations, in points; none for one seed."""


def curves_of(facts: RunFacts, metric: str, groups: Sequence[ChartGroup]) -> list[Curve]:
    """The curve of each group that has this metric in some epoch."""
    by_trial = _curves(facts.events, metric)
    found = (_curve(group, [by_trial[t] for t in group.trials if t in by_trial]) for group in groups)
    return [curve for curve in found if curve is not None]


def curves_chart(facts: RunFacts) -> Chart | None:
    """The curves of finalists and controls; of the trials that lead while there are none.

    The picture leaves out the steep first quarter, beside which all students would look the same.
    """
    curves = curves_of(facts, facts.rank_by.metric, groups_of(facts))
    if not curves:
        return None
    reached = teachers_selection(facts)
    keys = [Key(curve.group.name, curve.group.look, "line") for curve in curves]
    keys += [] if reached is None else [Key("teacher", TEACHER, "line")]
    what = f"Selection {facts.rank_by.label} by epoch"
    label = f"{what} of {len(curves)} groups of students"

    def paint(figure: Figure, is_narrow: bool) -> Tips:
        axes = axes_of(figure, left=58)
        axes.set(xlabel="epoch", ylabel=f"selection {facts.rank_by.label}, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5 if is_narrow else 10))
        tips = paint_curves(figure, curves)
        if reached is not None:
            pattern = dash_pattern(TEACHER)
            axes.axhline(100 * reached, color=hexadecimal(TEACHER.colour), linestyle=pattern, lw=1.5)
        room_above(axes, _shown_heights(curves, reached))
        return tips

    table = _table(curves, what)
    return Chart("curves", [in_two_sizes("curves", label, (420, 320), paint)], keys, table)


def paint_curves(figure: Figure, curves: Sequence[Curve]) -> Tips:
    """Draw a line and a band for each curve into the figure's axes; their hover texts."""
    axes = figure.axes[0]
    tips = {}
    for number, curve in enumerate(curves):
        look, means = curve.group.look, curve.means
        colour = hexadecimal(look.colour)
        if curve.stds is not None:
            low = [mean - std for mean, std in zip(means, curve.stds, strict=True)]
            high = [mean + std for mean, std in zip(means, curve.stds, strict=True)]
            axes.fill_between(curve.epochs, low, high, color=colour, alpha=0.15, lw=0)
        # Its marker at some epochs only, and for each group at others.
        every = max(len(means) // 8, 1)
        axes.plot(
            curve.epochs,
            means,
            color=colour,
            linestyle=dash_pattern(look),
            lw=3 if curve.group.is_champion else 2,
            marker=look.marker,
            markersize=9 if look.marker == "*" else 5,
            markevery=(number % every, every),
            gid=f"curve-{number}",
        )
        tips[f"curve-{number}"] = [f"{curve.group.name}: {means[-1]:.2f} % in epoch {curve.epochs[-1]}"]
    return tips


def thinned(epochs: Sequence[int]) -> list[int]:
    """As many of these epochs as a table has, evenly, with the last one."""
    step = max(-(-len(epochs) // TABLE_ROWS), 1)
    return list(epochs[::-1][::step][::-1])


def _curves(events: Iterable[Event], metric: str) -> dict[str, dict[int, float]]:
    """A metric by trial and epoch; an epoch that was told twice counts once."""
    curves: dict[str, dict[int, float]] = {}
    for event in events:
        if isinstance(event, EpochEnded) and metric in event.metrics:
            curves.setdefault(event.trial, {})[event.epoch] = event.metrics[metric]
    return {trial: dict(sorted(curve.items())) for trial, curve in curves.items()}


def _curve(group: ChartGroup, seeds: Sequence[Mapping[int, float]]) -> Curve | None:
    shared = sorted(set(seeds[0]).intersection(*seeds[1:])) if seeds else []
    if not shared:
        return None
    values = [[100 * seed[epoch] for seed in seeds] for epoch in shared]
    stds = [statistics.stdev(each) for each in values] if len(seeds) > 1 else None
    return Curve(group, shared, [statistics.fmean(each) for each in values], stds)


def _shown_heights(curves: Sequence[Curve], reached: float | None) -> list[float]:
    heights = [mean for curve in curves for mean in curve.means[len(curve.means) // 4 :]]
    return heights if reached is None else [*heights, 100 * reached]


def _table(curves: Sequence[Curve], what: str) -> Table:
    epochs = sorted({epoch for curve in curves for epoch in curve.epochs})
    rows = [[str(epoch), *(cell_of(curve, epoch) for curve in curves)] for epoch in thinned(epochs)]
    names = [curve.group.name for curve in curves]
    return Table(("epoch", *names), rows, f"{what}, %: means over seeds ± standard deviation")


def cell_of(curve: Curve, epoch: int) -> str:
    """A table's cell: mean and deviation in an epoch; empty where the curve has none there."""
    if epoch not in curve.epochs:
        return ""
    place = curve.epochs.index(epoch)
    std = None if curve.stds is None else curve.stds[place] / 100
    return percent(curve.means[place] / 100, std)
