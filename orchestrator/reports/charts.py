"""The report's charts, as plotly figures: cost, learning curves, what the search tried."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any, NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from orchestrator.records.events import EpochEnded, Event
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.selection import Figures, pareto_front, score_of
from orchestrator.records.student_figures import Students
from orchestrator.records.students_table import named_controls
from orchestrator.records.summary import Summary, is_champion
from trainables.config import Cost
from trainables.config.metrics import RankBy

# Okabe and Ito's colours, told apart by colour-blind readers too; controls are always grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
CONTROL_COLOURS = ("#444444", "#777777", "#999999")
TEACHER_COLOUR = "#7a3db8"
QUIET_COLOUR = "#b8bec7"
GRID_COLOUR = "#e6e8ec"
COSTS = MappingProxyType({"latency_ms": "latency of one image, ms", "params": "parameters"})
LOG_AXIS_FROM = 10.0
LAYOUT: dict[str, Any] = {
    "template": "none",
    "font": {"family": "system-ui, -apple-system, 'Segoe UI', sans-serif", "size": 13, "color": "#2b2f36"},
    "margin": {"l": 64, "r": 24, "t": 40, "b": 56},
    "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    "hoverlabel": {"align": "left"},
}


class ChartGroup(NamedTuple):
    """One control, or one finalist, as all charts show it."""

    name: str
    colour: str
    students: Students
    is_champion: bool = False


def groups_of(summary: Summary) -> list[ChartGroup]:
    """The controls, then each finalist."""
    groups = [
        ChartGroup(f"{name} (ce)", CONTROL_COLOURS[index % len(CONTROL_COLOURS)], control)
        for index, (name, control) in enumerate(named_controls(summary))
    ]
    for index, finalist in enumerate(summary.finalists):
        champion = is_champion(summary, finalist)
        mark = " ★" if champion else ""
        name = f"finalist {index + 1} ({html.escape(finalist.objective, quote=False)}){mark}"
        groups.append(ChartGroup(name, COLOURS[index % len(COLOURS)], finalist, champion))
    return groups


def cost_chart(summary: Summary, records: Sequence[TrialRecord], figures: Figures) -> go.Figure:
    """What ranks students against latency and parameters, with the Pareto front of finalists and controls.

    Where the search itself weighed costs, the trials that no other beats in all that it weighed are ringed.
    """
    chart = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.06)
    searched = [r for r in records if r.status == "completed" and r.score is not None and r.trial in figures]
    for column, (field, title) in enumerate(COSTS.items(), start=1):
        costs = [figures[record.trial][field] for record in searched]
        _add_searched(chart, searched, costs, column)
        _add_unbeaten(chart, searched, figures, field, column)
        _add_front(chart, summary, field, column)
        for group in groups_of(summary):
            _add_group(chart, group, field, column)
            costs.append(float(getattr(group.students, field)))
        if field == "params":
            costs += _add_teacher(chart, summary, column)
        chart.update_xaxes(title=title, **_axis(costs), row=1, col=column)
    chart.update_layout(**LAYOUT, height=420)
    chart.update_yaxes(gridcolor=GRID_COLOUR, zeroline=False)
    chart.update_yaxes(title=f"selection {summary.rank_by.label}, %", row=1, col=1)
    return chart


def curves_chart(summary: Summary, events: Iterable[Event]) -> go.Figure:
    """The figure that ranks students by epoch: each seed as a thin line, their mean as a thick one.

    The picture leaves out the steep first quarter, beside which all students would look the same.
    """
    curves = _curves(events, summary.rank_by)
    chart = go.Figure()
    means: list[dict[int, float]] = []
    for name, colour, students, _ in groups_of(summary):
        seeds = [curves[trial] for trial in students.trials if trial in curves]
        for curve in seeds:
            _add_line(chart, curve, colour, name, thin=True)
        if seeds:
            shared = sorted(set(seeds[0]).intersection(*seeds[1:]))
            mean = {epoch: sum(curve[epoch] for curve in seeds) / len(seeds) for epoch in shared}
            _add_line(chart, mean, colour, name, thin=False)
            means.append(mean)
    reached = _teachers(summary)
    if reached is not None:
        chart.add_hline(
            y=100 * reached,
            line={"dash": "dot", "color": TEACHER_COLOUR, "width": 1.5},
            annotation={"text": "teacher", "font": {"color": TEACHER_COLOUR}},
            annotation_position="top left",
        )
    chart.update_layout(**LAYOUT, height=420)
    chart.update_xaxes(title="epoch", gridcolor=GRID_COLOUR, zeroline=False)
    heights = [v for mean in means for v in list(mean.values())[len(mean) // 4 :]]
    if heights:
        heights += [] if reached is None else [reached]
        pad = max(0.08 * (max(heights) - min(heights)), 1e-3)
        chart.update_yaxes(range=[100 * (min(heights) - pad), 100 * (max(heights) + pad)])
    chart.update_yaxes(title=f"selection {summary.rank_by.label}, %", gridcolor=GRID_COLOUR, zeroline=False)
    return chart


def _add_searched(
    chart: go.Figure, searched: Sequence[TrialRecord], costs: Sequence[float], column: int
) -> None:
    chart.add_scatter(
        x=list(costs),
        y=[100 * score_of(record) for record in searched],
        text=[html.escape(record.trial, quote=False) for record in searched],
        mode="markers",
        marker={"color": QUIET_COLOUR, "size": 7},
        name="trials of the search (one seed)",
        showlegend=column == 1 and bool(searched),
        row=1,
        col=column,
    )


def _add_unbeaten(
    chart: go.Figure, searched: Sequence[TrialRecord], figures: Figures, field: str, column: int
) -> None:
    weighed = [cost for cost in Cost if any(cost.metric in record.best for record in searched)]
    if not weighed:
        return
    points = {r.trial: {**figures[r.trial], "selection_accuracy": score_of(r)} for r in searched}
    front = sorted((points[name][field], name) for name in pareto_front(points, minimise=weighed))
    chart.add_scatter(
        x=[cost for cost, _ in front],
        y=[100 * points[name]["selection_accuracy"] for _, name in front],
        mode="markers",
        marker={"symbol": "circle-open", "color": CONTROL_COLOURS[0], "size": 12, "line": {"width": 1.5}},
        name=f"unbeaten trials: {searched[0].rank_by.label}, {', '.join(weighed)}",
        showlegend=column == 1,
        hoverinfo="skip",
        row=1,
        col=column,
    )


def _add_teacher(chart: go.Figure, summary: Summary, column: int) -> list[float]:
    """Its point, where it is known, and how far to the right that lies."""
    teacher = summary.teacher
    reached = _teachers(summary)
    if teacher is None or teacher.params is None or reached is None:
        return []
    chart.add_scatter(
        x=[teacher.params],
        y=[100 * reached],
        mode="markers",
        marker={"symbol": "diamond", "size": 11, "color": TEACHER_COLOUR},
        name="teacher",
        row=1,
        col=column,
    )
    return [float(teacher.params)]


def _teachers(summary: Summary) -> float | None:
    """What the teacher reaches on the selection split; none where its features would have to be judged."""
    teacher = summary.teacher
    return None if teacher is None or summary.rank_by.is_of_features else teacher.selection_accuracy


def _add_front(chart: go.Figure, summary: Summary, field: str, column: int) -> None:
    points = {
        name: {"selection_accuracy": students.selection_mean, field: float(getattr(students, field))}
        for name, _, students, _ in groups_of(summary)
    }
    front = sorted((points[n] for n in pareto_front(points, minimise=(field,))), key=lambda p: p[field])
    steps = [(front[0][field], front[0]["selection_accuracy"])]
    for here, there in pairwise(front):
        steps += [
            (there[field], here["selection_accuracy"]),
            (there[field], there["selection_accuracy"]),
        ]
    chart.add_scatter(
        x=[x for x, _ in steps],
        y=[100 * y for _, y in steps],
        mode="lines",
        line={"dash": "dash", "color": QUIET_COLOUR, "width": 1.5},
        name="Pareto front",
        showlegend=column == 1 and len(front) > 1,
        hoverinfo="skip",
        row=1,
        col=column,
    )


def _add_group(chart: go.Figure, group: ChartGroup, field: str, column: int) -> None:
    students, spread = group.students, group.students.selection_std
    chart.add_scatter(
        x=[getattr(students, field)],
        y=[100 * students.selection_mean],
        error_y={"type": "data", "array": [100 * spread], "thickness": 1.5} if spread is not None else None,
        mode="markers",
        marker={
            "color": group.colour,
            "size": 12,
            "symbol": "star" if group.is_champion else "circle",
        },
        name=group.name,
        legendgroup=group.name,
        showlegend=column == 1,
        row=1,
        col=column,
    )


def _add_line(chart: go.Figure, curve: Mapping[int, float], colour: str, name: str, *, thin: bool) -> None:
    chart.add_scatter(
        x=list(curve),
        y=[100 * accuracy for accuracy in curve.values()],
        mode="lines" if len(curve) > 1 else "markers",
        line={"color": colour, "width": 1 if thin else 3},
        opacity=0.35 if thin else 1,
        name=name,
        legendgroup=name,
        showlegend=not thin,
        hoverinfo="skip" if thin else "all",
    )


def _curves(events: Iterable[Event], rank_by: RankBy) -> dict[str, dict[int, float]]:
    """The figure that ranks students, by trial and epoch; an epoch that was told twice counts once."""
    curves: dict[str, dict[int, float]] = {}
    for event in events:
        if isinstance(event, EpochEnded) and rank_by.metric in event.metrics:
            curves.setdefault(event.trial, {})[event.epoch] = event.metrics[rank_by.metric]
    return {trial: dict(sorted(curve.items())) for trial, curve in curves.items()}


def _axis(values: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis where the values span a decade; a linear one starts at zero."""
    axis: dict[str, Any] = {"gridcolor": GRID_COLOUR, "zeroline": False}
    if min(values) > 0 and max(values) / min(values) >= LOG_AXIS_FROM:
        return axis | {"type": "log", "dtick": "D2", "exponentformat": "SI"}
    return axis | {"rangemode": "tozero"}
