"""Parallel coordinates of a search: one line a trial, one axis a hyper-parameter, what ranks them last.

Drawn as plain lines: plotly's own `parcoords` needs WebGL, which printing and locked-down browsers lack.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from orchestrator.records.ledger import TrialRecord
from orchestrator.records.selection import rank_trials, score_of
from orchestrator.reports.charts import LAYOUT, QUIET_COLOUR
from orchestrator.terminal.formatting import short_parameters

MAX_LINES = 200
LOG_FROM = 8.0
ABSENT_HEIGHT = -0.12


@dataclass(frozen=True)
class _Axis:
    name: str
    values: tuple[Any, ...]
    """Distinct values: all of a category, or (lowest, highest) of a number."""
    numeric: bool
    log: bool

    def height(self, value: Any) -> float:
        """Where a value stands, 0 to 1; below the axis where a trial does not have it."""
        if value is None:
            return ABSENT_HEIGHT
        if not self.numeric:
            return self.values.index(str(value)) / max(len(self.values) - 1, 1)
        low, high, number = (math.log(v) if self.log else float(v) for v in (*self.values, value))
        return (number - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """Heights and labels: every category, or five steps of a number."""
        if not self.numeric:
            return [(self.height(value), html.escape(str(value)[:24], quote=False)) for value in self.values]
        low, high = (math.log(v) if self.log else float(v) for v in self.values)
        steps = [low + (high - low) * step / 4 for step in range(5)]
        return [(step / 4, f"{math.exp(v) if self.log else v:.3g}") for step, v in enumerate(steps)]


def search_chart(records: Sequence[TrialRecord]) -> go.Figure | None:
    """Completed trials coloured by what ranks them, pruned ones in grey; none if nothing varied."""
    completed = rank_trials(records)[:MAX_LINES]
    pruned = [r for r in records if r.status == "pruned" and r.score is not None][:MAX_LINES]
    axes = _axes([*completed, *pruned])
    if not completed or len(axes) < 2:
        return None
    score = _score_axis(completed[0])
    chart = go.Figure()
    for record in pruned:
        _add_trial(chart, axes, record, QUIET_COLOUR, width=1.0)
    for record in reversed(completed):  # the best are drawn last, on top
        # Where all score the same, or one alone was completed, there is no axis of scores.
        height = axes[-1].height(_row(record)[score]) if axes[-1].name == score else 1.0
        colour = sample_colorscale("Viridis_r", [height])[0]
        _add_trial(chart, axes, record, colour, width=4.0 if record is completed[0] else 2.0)
    for place, axis in enumerate(axes):
        _add_axis(chart, place, axis)
    chart.update_layout(
        **LAYOUT | {"showlegend": False, "margin": {"l": 64, "r": 64, "t": 84, "b": 24}}, height=470
    )
    chart.update_xaxes(visible=False, range=[-0.1, len(axes) - 0.75])
    chart.update_yaxes(visible=False, range=[-0.18, 1.05])
    return chart


def _score_axis(record: TrialRecord) -> str:
    return f"selection {record.rank_by.label}, %"


def _row(record: TrialRecord) -> dict[str, Any]:
    return {
        "objective": record.objective,
        **record.parameters,
        # A stopped trial had a smaller budget: its figure does not compare.
        _score_axis(record): 100 * score_of(record) if record.status == "completed" else None,
    }


def _axes(records: Sequence[TrialRecord]) -> list[_Axis]:
    """Axes in the order in which the search names them, what ranks them last; none that never varied."""
    rows = [_row(record) for record in records]
    names = list(dict.fromkeys(name for row in rows for name in row))
    scores = set(map(_score_axis, records))
    names.sort(key=lambda name: name in scores)
    axes = (_axis(name, [row[name] for row in rows if row.get(name) is not None]) for name in names)
    return [axis for axis in axes if axis is not None]


def _axis(name: str, values: Sequence[Any]) -> _Axis | None:
    distinct = {str(value) for value in values}
    if len(distinct) < 2:
        return None
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        low, high = min(values), max(values)
        return _Axis(name, (low, high), numeric=True, log=low > 0 and high / low >= LOG_FROM)
    return _Axis(name, tuple(sorted(distinct)), numeric=False, log=False)


def _add_trial(
    chart: go.Figure, axes: Sequence[_Axis], record: TrialRecord, colour: str, *, width: float
) -> None:
    row = _row(record)
    reached = f"{100 * score_of(record):.2f} %"
    told = (
        f"{record.trial} ({record.status}): {reached}\n"
        f"{record.objective}: {short_parameters(record.parameters)}"
    )
    chart.add_scatter(
        x=list(range(len(axes))),
        y=[axis.height(row.get(axis.name)) for axis in axes],
        mode="lines",
        line={"color": colour, "width": width},
        opacity=0.85,
        text=[html.escape(told, quote=False).replace("\n", "<br>")] * len(axes),
        hoverinfo="text",
    )


def _add_axis(chart: go.Figure, place: int, axis: _Axis) -> None:
    chart.add_shape(
        type="line", x0=place, x1=place, y0=0, y1=1, line={"color": "#444", "width": 1}, layer="above"
    )
    name = axis.name + (" (log)" if axis.log else "")
    # Neighbours would overlap: a name breaks where its words do.
    lines = "<br>".join(
        html.escape(line, quote=False) for line in re.sub(r"([_. ])", r"\1\n", name).split("\n")
    )
    chart.add_annotation(
        x=place, y=1.06, text=f"<b>{lines}</b>", showarrow=False, yanchor="bottom", yref="paper"
    )
    for height, label in axis.ticks():
        chart.add_annotation(
            x=place,
            y=height,
            text=label,
            showarrow=False,
            xanchor="left",
            xshift=5,
            font={"size": 11},
            bgcolor="rgba(255,255,255,0.85)",
        )
