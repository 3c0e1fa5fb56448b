"""What ranks students against latency and parameters, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Final, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from orchestrator.config.picking.figures import ACCURACY
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.picking.fronts import first_front
from orchestrator.records.selection import score_of
from orchestrator.reports.charts.chart import MOST_WITH_TIPS, PANEL, Chart, Key, Panel, Table
from orchestrator.reports.charts.groups import ChartGroup, groups_of, teachers_selection
from orchestrator.reports.charts.palette import QUIET, TEACHER, Look, hexadecimal
from orchestrator.reports.charts.scales import room_above, scale_x, spans_decades
from orchestrator.reports.charts.svg import Tips, axes_of, drawing
from orchestrator.reports.run_facts import RunFacts
from orchestrator.terminal.formatting import percent, short_parameters
from trainables.config import Cost

COSTS: Final = MappingProxyType({"latency_ms": "latency of one image, ms", "params": "parameters"})
_RING: Final = Look("grey-1", "o")
_FRONT: Final = Look("grey-3", "o", (6, 3))


class Point(NamedTuple):
    """A student's cost and what it reaches, in per cent."""

    cost: float
    reached: float
    tip: str = ""


class CostPanel(NamedTuple):
    """All that is drawn against one cost."""

    field: str
    searched: list[Point]
    ringed: list[Point]
    """Trials that no other beats in all that the search weighed."""
    groups: list[tuple[ChartGroup, Point]]
    front: list[Point]
    """Those that no other beats in both, by cost; of the groups, or of the trials where there are none."""
    teacher: Point | None


def cost_panels(facts: RunFacts) -> list[CostPanel]:
    """One for each cost that is known of some student."""
    panels = [_cost_panel(facts, field) for field in COSTS]
    return [panel for panel in panels if panel.searched or panel.groups]


def weighed_costs(facts: RunFacts) -> list[Cost]:
    """Costs that the search itself weighed against what ranks students."""
    return [cost for cost in Cost if any(cost.metric in record.best for record in _searched(facts))]


def cost_chart(facts: RunFacts) -> Chart | None:
    """The panels; none while no cost is known."""
    panels = cost_panels(facts)
    if not panels:
        return None
    keys = [group.key for group, _ in panels[0].groups]
    if any(panel.searched for panel in panels):
        keys.append(Key("trials of the search (one seed)", QUIET, "marker"))
    if any(panel.ringed for panel in panels):
        weighed = ", ".join(weighed_costs(facts))
        keys.append(Key(f"unbeaten trials: {facts.rank_by.label}, {weighed}", _RING, "ring"))
    if any(len(panel.front) > 1 for panel in panels):
        keys.append(Key("Pareto front", _FRONT, "line"))
    if any(panel.teacher for panel in panels):
        keys.append(Key("teacher", TEACHER, "marker"))
    return Chart("cost", [_drawn(facts, panel) for panel in panels], keys, _table(facts))


def _searched(facts: RunFacts) -> list[TrialRecord]:
    return [
        r
        for r in facts.records
        if r.status == "completed" and r.score is not None and r.trial in facts.figures
    ]


def _cost_panel(facts: RunFacts, field: str) -> CostPanel:
    records = _searched(facts)
    searched = {
        r.trial: Point(
            facts.figures[r.trial][field],
            100 * score_of(r),
            f"{r.trial}: {percent(score_of(r))} %\n{r.objective}: {short_parameters(r.parameters)}",
        )
        for r in records
    }
    groups = [
        (
            group,
            Point(group.costs[field], 100 * group.mean, f"{group.name}: {percent(group.mean, group.std)} %"),
        )
        for group in groups_of(facts)
        if group.mean is not None and field in group.costs
    ]
    points = [point for _, point in groups] or list(searched.values())
    return CostPanel(
        field,
        list(searched.values()),
        [searched[trial] for trial in _unbeaten(facts, records)],
        groups,
        _front(points, field),
        _teacher_point(facts, field),
    )


def _unbeaten(facts: RunFacts, records: Sequence[TrialRecord]) -> list[str]:
    weighed = weighed_costs(facts)
    points = {r.trial: {**facts.figures[r.trial], ACCURACY: score_of(r)} for r in records}
    return first_front(points, (ACCURACY, *weighed)) if weighed else []


def _front(points: Sequence[Point], field: str) -> list[Point]:
    named = {str(n): {ACCURACY: point.reached, field: point.cost} for n, point in enumerate(points)}
    return sorted(points[int(name)] for name in first_front(named, (ACCURACY, field)))


def _teacher_point(facts: RunFacts, field: str) -> Point | None:
    teacher = facts.summary.teacher if facts.summary else None
    cost = getattr(teacher, field, None)
    reached = teachers_selection(facts)
    if cost is None or reached is None:
        return None
    return Point(float(cost), 100 * reached, f"teacher: {percent(reached)} %")


def _drawn(facts: RunFacts, panel: CostPanel) -> Panel:
    title = COSTS[panel.field]
    label = f"Selection {facts.rank_by.label} against {title}: {len(panel.groups)} groups of students"

    def paint(figure: Figure) -> Tips:
        axes = axes_of(figure, left=58)
        axes.set(xlabel=title, ylabel=f"selection {facts.rank_by.label}, %")
        everyone = [*panel.searched, *(point for _, point in panel.groups)]
        everyone += [panel.teacher] if panel.teacher else []
        costs = [point.cost for point in everyone]
        scale_x(axes, costs, log=spans_decades(costs), counts=panel.field == "params")
        if not spans_decades(costs):
            axes.set_xlim(0, 1.08 * max(costs))
        room_above(axes, [point.reached for point in everyone])
        tips: dict[str, Sequence[str]] = {}
        if panel.searched:
            quiet, reached = hexadecimal(QUIET.colour), [p.reached for p in panel.searched]
            axes.scatter([p.cost for p in panel.searched], reached, s=22, color=quiet, gid="searched")
            if len(panel.searched) <= MOST_WITH_TIPS:
                tips["searched"] = [point.tip for point in panel.searched]
        _paint_front(axes, panel)
        for number, (group, point) in enumerate(panel.groups):
            _paint_point(axes, group.look, point, group.std, f"group-{number}")
            tips[f"group-{number}"] = [point.tip]
        if panel.teacher:
            _paint_point(axes, TEACHER, panel.teacher, None, "teacher")
            tips["teacher"] = [panel.teacher.tip]
        return tips

    return Panel(drawing(f"cost-{panel.field}", label, PANEL, paint))


def _paint_point(axes: Axes, look: Look, point: Point, std: float | None, gid: str) -> None:
    colour = hexadecimal(look.colour)
    if std is not None:
        axes.errorbar(point.cost, point.reached, yerr=100 * std, color=colour, fmt="none", elinewidth=1.5)
    size = 130 if look.marker == "*" else 60
    axes.scatter([point.cost], [point.reached], s=size, marker=look.marker, color=colour, gid=gid, zorder=3)


def _paint_front(axes: Axes, panel: CostPanel) -> None:
    if panel.ringed:
        x, y = [p.cost for p in panel.ringed], [p.reached for p in panel.ringed]
        axes.scatter(x, y, s=110, facecolors="none", edgecolors=hexadecimal(_RING.colour), linewidths=1.5)
    steps = [(panel.front[0].cost, panel.front[0].reached)]
    for here, there in pairwise(panel.front):
        steps += [(there.cost, here.reached), (there.cost, there.reached)]
    x, y = [x for x, _ in steps], [y for _, y in steps]
    axes.plot(x, y, color=hexadecimal(_FRONT.colour), linestyle=(0, _FRONT.dashes), lw=1.5, zorder=1)


def _table(facts: RunFacts) -> Table:
    columns = ("student", f"selection {facts.rank_by.label}, %", "latency, ms", "parameters")
    rows = [
        (
            group.name,
            percent(group.mean, group.std),
            f"{group.costs['latency_ms']:.3f}" if "latency_ms" in group.costs else "",
            f"{group.costs['params']:,.0f}" if "params" in group.costs else "",
        )
        for group in groups_of(facts)
        if group.mean is not None
    ]
    return Table(columns, rows)
