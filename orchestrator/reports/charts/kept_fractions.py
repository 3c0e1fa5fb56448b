"""The share of samples that an objective's masks keep, as by a confidence threshold, over the epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from orchestrator.records.events import EpochEnded
from orchestrator.records.selection import rank_trials
from orchestrator.reports.charts.chart import PANEL, Chart, Key, Panel, Table
from orchestrator.reports.charts.curves import Curve, cell_of, curves_of, paint_curves, thinned
from orchestrator.reports.charts.groups import LEADERS, ChartGroup, groups_of
from orchestrator.reports.charts.palette import student_look
from orchestrator.reports.charts.svg import Tips, axes_of, drawing
from orchestrator.reports.run_facts import RunFacts
from trainables.config.metrics import KEPT

MOST_GAUGES: Final = 6


def kept_curves(facts: RunFacts) -> dict[str, list[Curve]]:
    """By gauge, as `kept_weak`, the curve of each group that has it.

    Where no finalist or control has one, those of the best trials that do.
    """
    gauges = sorted(
        {name for event in facts.events if isinstance(event, EpochEnded) for name in _gauges(event)}
    )[:MOST_GAUGES]
    for groups in (groups_of(facts), _leaders(facts)):
        found = {name.partition("/")[2]: curves_of(facts, name, groups) for name in gauges}
        if any(found.values()):
            return {name: curves for name, curves in found.items() if curves}
    return {}


def kept_chart(facts: RunFacts) -> Chart | None:
    """A panel a gauge; none where no objective has a mask."""
    found = kept_curves(facts)
    if not found:
        return None
    groups = {curve.group.name: curve.group for curves in found.values() for curve in curves}
    keys = [Key(name, group.look, "line") for name, group in groups.items()]
    panels = [_panel(name, curves) for name, curves in found.items()]
    rows = [
        (name, curve.group.name, str(epoch), cell_of(curve, epoch))
        for name, curves in found.items()
        for curve in curves
        for epoch in thinned(curve.epochs)
    ]
    about = "Samples kept by epoch, %: means over seeds ± standard deviation"
    return Chart("kept", panels, keys, Table(("mask", "students", "epoch", "kept, %"), rows, about))


def _gauges(event: EpochEnded) -> list[str]:
    return [name for name in event.metrics if name.startswith(KEPT)]


def _leaders(facts: RunFacts) -> list[ChartGroup]:
    having = [r for r in rank_trials(facts.records) if any(name.startswith(KEPT) for name in r.final)]
    return [
        ChartGroup(f"{record.objective} ({record.trial})", student_look(number), [record.trial])
        for number, record in enumerate(having[:LEADERS])
    ]


def _panel(name: str, curves: Sequence[Curve]) -> Panel:
    def paint(figure: Figure) -> Tips:
        axes = axes_of(figure, left=58)
        axes.set(xlabel="epoch", ylabel=f"{name}: samples, %", ylim=(-3, 103))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        return paint_curves(figure, curves)

    return Panel(drawing(f"kept-{name}", f"Share of samples kept, {name}, by epoch", PANEL, paint))
