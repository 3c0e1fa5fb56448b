"""A chart on the page: its drawings for wide and narrow screens, a legend, and its figures as a table."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from orchestrator.reports.charts.palette import Look, hexadecimal
from orchestrator.reports.charts.svg import NO_TIPS, Drawing, Tips, axes_of, drawing

PANEL = (420, 300)
"""Pixels of a panel, several of which stand beside or below each other."""
WIDE = 1180
MOST_WITH_TIPS = 150
"""Trials whose points have hover texts where several panels show them; of more, these would be the page."""
NARROW = 380
"""Pixels in width of a chart that is drawn twice, for wide and for narrow screens."""


@dataclass(frozen=True)
class Panel:
    """One drawing, and another of the same for narrow screens where it would be too small to read."""

    drawing: Drawing
    narrow: Drawing | None = None


@dataclass(frozen=True)
class Key:
    """One entry of a legend."""

    name: str
    look: Look
    kind: str = "both"
    """What of its look is drawn: `line`, `marker`, `ring` (a hollow one) or both."""


@dataclass(frozen=True)
class Table:
    """A chart's figures, for those who do not see it."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    about: str = "The figures of this chart"


@dataclass(frozen=True)
class Chart:
    """Panels with one legend and one table."""

    name: str
    panels: Sequence[Panel]
    keys: Sequence[Key] = ()
    table: Table | None = None

    @property
    def styles(self) -> dict[str, str]:
        """Declarations of all classes in it."""
        known: dict[str, str] = {}
        for panel in self.panels:
            known |= panel.drawing.styles
            known |= panel.narrow.styles if panel.narrow else {}
        for number, key in enumerate(self.keys):
            known |= _swatch(f"{self.name}-key{number}", key).styles
        return known

    @property
    def markup(self) -> str:
        """The chart as HTML."""
        kind = "panels" if len(self.panels) > 1 or self.panels[0].narrow is None else "single"
        legend = "".join(
            f'<li><span class="swatch" aria-hidden="true">{_swatch(f"{self.name}-key{number}", key).markup}'
            f"</span>{html.escape(key.name)}</li>"
            for number, key in enumerate(self.keys)
        )
        return (
            f'<div class="chart" id="chart-{self.name}">'
            + (f'<ul class="legend">{legend}</ul>' if legend else "")
            + f'<div class="{kind}">{"".join(map(_panel, self.panels))}</div>'
            + (table_markup(self.table) if self.table and self.table.rows else "")
            + "</div>"
        )


def in_two_sizes(
    name: str, label: str, heights: tuple[float, float], paint: Callable[[Figure, bool], Tips]
) -> Panel:
    """A drawing for wide screens and one for narrow ones, of these heights; `paint` is told which."""
    return Panel(
        drawing(name, label, (WIDE, heights[0]), lambda figure: paint(figure, False)),
        drawing(f"{name}-narrow", label, (NARROW, heights[1]), lambda figure: paint(figure, True)),
    )


def table_markup(table: Table) -> str:
    """A table that opens when it is asked for, by keyboard too."""
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in table.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    about = html.escape(table.about)
    return (
        f"<details><summary>{about}</summary>"
        f'<div class="scroll" role="region" tabindex="0" aria-label="{about}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></details>"
    )


def dash_pattern(look: Look) -> tuple[float, tuple[float, ...]] | Literal["-"]:
    """A look's dashes as matplotlib takes them."""
    return (0, look.dashes) if look.dashes else "-"


def merged_styles(charts: Sequence[Chart | None]) -> Mapping[str, str]:
    """Declarations of the classes of all charts."""
    return {name: css for chart in charts if chart for name, css in chart.styles.items()}


def _panel(panel: Panel) -> str:
    if panel.narrow is None:
        return f"<div>{panel.drawing.markup}</div>"
    return f'<div class="wide">{panel.drawing.markup}</div><div class="narrow">{panel.narrow.markup}</div>'


@lru_cache(maxsize=512)
def _swatch(name: str, key: Key) -> Drawing:
    def paint(figure: Figure) -> Tips:
        axes = axes_of(figure, left=0, right=0, top=0, bottom=0)
        axes.set_axis_off()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        colour = hexadecimal(key.look.colour)
        axes.add_line(
            Line2D(
                [0.02, 0.5, 0.98],
                [0.5] * 3,
                color=colour,
                linestyle=dash_pattern(key.look) if key.kind in ("both", "line") else "none",
                marker=key.look.marker if key.kind in ("both", "marker", "ring") else "",
                markevery=[1],
                markersize=9 if key.look.marker == "*" else 7,
                markerfacecolor="none" if key.kind == "ring" else colour,
                markeredgecolor=colour,
            )
        )
        return NO_TIPS

    return drawing(name, key.name, (34, 14), paint)
