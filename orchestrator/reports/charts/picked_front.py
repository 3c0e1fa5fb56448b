"""The front from which a champion was picked: finalists, and the trials' first front, by its figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from orchestrator.config.picking.figures import FIGURES
from orchestrator.records.picking.picked import Picked, Placed, front_table
from orchestrator.reports.charts.chart import PANEL, Chart, Key, Panel, Table
from orchestrator.reports.charts.groups import ChartGroup, groups_of
from orchestrator.reports.charts.palette import QUIET, Look, hexadecimal
from orchestrator.reports.charts.scales import room_above, scale_x, spans_decades
from orchestrator.reports.charts.svg import Tips, axes_of, drawing
from orchestrator.reports.run_facts import RunFacts

_RING: Final = Look("grey-1", "o")
_LINE: Final = Look("grey-3", "o", (6, 3))
COUNTS: Final = frozenset({"params", "size_bytes"})


class Spot(NamedTuple):
    """A student by two figures; fractions in per cent."""

    across: float
    up: float
    is_first: bool
    """Whether it is on the first front, which all figures that were asked for make."""


class FrontPanel(NamedTuple):
    """Two of the figures of a front."""

    across: str
    up: str
    finalists: list[tuple[ChartGroup, Spot]]
    trials: list[Spot]
    """Those of the search on their own first front."""
    is_whole: bool
    """Whether these two figures alone make the front, so that it is a line."""


def front_panels(facts: RunFacts) -> list[FrontPanel]:
    """One for each figure beside the first of which more is better; none where no front was asked for."""
    picked = facts.summary.picked if facts.summary else None
    if picked is None or not picked.pareto:
        return []
    up = next((name for name in picked.pareto if FIGURES[name].higher_is_better), picked.pareto[0])
    return [
        _front_panel(facts, picked, across, up, is_whole=len(picked.pareto) == 2)
        for across in picked.pareto
        if across != up
    ]


def front_chart(facts: RunFacts) -> Chart | None:
    """The panels; none where the champion was not picked from a front."""
    panels, picked = front_panels(facts), facts.summary.picked if facts.summary else None
    if picked is None or not any(panel.finalists for panel in panels):
        return None
    groups = {group.name: group for panel in panels for group, _ in panel.finalists}
    keys = [Key(name, group.look, "marker") for name, group in groups.items()]
    keys.append(Key("finalists on the first front", _RING, "ring"))
    if panels[0].is_whole:
        keys.append(Key("their front", _LINE, "line"))
    if any(panel.trials for panel in panels):
        keys.append(Key("trials of the search on their first front", QUIET, "marker"))
    drawn = [_drawn(number, panel) for number, panel in enumerate(panels)]
    return Chart("front", drawn, keys, _table(picked))


def _front_panel(facts: RunFacts, picked: Picked, across: str, up: str, *, is_whole: bool) -> FrontPanel:
    groups = {trial: group for group in groups_of(facts) for trial in group.trials}
    finalists = [
        (groups[each.trial], spot)
        for each in picked.finalists
        if each.trial in groups and (spot := _spot(each, across, up))
    ]
    trials = [spot for each in picked.trials if each.front == 1 and (spot := _spot(each, across, up))]
    return FrontPanel(across, up, finalists, trials, is_whole)


def _spot(student: Placed, across: str, up: str) -> Spot | None:
    """None where one of the two is not known of it."""
    if across not in student.figures or up not in student.figures:
        return None
    return Spot(_shown(across, student.figures[across]), _shown(up, student.figures[up]), student.front == 1)


def _shown(name: str, value: float) -> float:
    return 100 * value if FIGURES[name].is_fraction else value


def _title(name: str) -> str:
    unit = "%" if FIGURES[name].is_fraction else FIGURES[name].unit
    return f"{name}, {unit}" if unit else name


def _table(picked: Picked) -> Table:
    first = [trial for trial in picked.trials if trial.front == 1]
    rows: list[tuple[str, ...]] = []
    columns: tuple[str, ...] = ()
    for students, placed in (("finalists", picked.finalists), ("trials, the first front", first)):
        _, columns, own = front_table(students, placed, picked.pareto, None)
        rows += [(students, *row) for row in own]
    return Table(("of", *columns), rows)


def _drawn(number: int, panel: FrontPanel) -> Panel:
    def paint(figure: Figure) -> Tips:
        axes = axes_of(figure, left=62)
        axes.set(xlabel=_title(panel.across), ylabel=_title(panel.up))
        spots = [*panel.trials, *(spot for _, spot in panel.finalists)]
        places = [spot.across for spot in spots]
        scale_x(axes, places, log=spans_decades(places), counts=panel.across in COUNTS)
        room_above(axes, [spot.up for spot in spots])
        _paint_spots(axes, panel.trials, QUIET, 26)
        first = sorted(spot for _, spot in panel.finalists if spot.is_first)
        x, y = [spot.across for spot in first], [spot.up for spot in first]
        axes.scatter(x, y, s=190, facecolors="none", edgecolors=hexadecimal(_RING.colour), linewidths=1.5)
        if panel.is_whole:
            axes.plot(x, y, color=hexadecimal(_LINE.colour), linestyle=(0, _LINE.dashes), lw=1.5, zorder=1)
        tips: dict[str, Sequence[str]] = {}
        for place, (group, spot) in enumerate(panel.finalists):
            gid = f"finalist-{place}"
            _paint_spots(axes, [spot], group.look, 130 if group.is_champion else 60, gid)
            tips[gid] = [
                f"{group.name}: {_title(panel.up)} {spot.up:.6g}, {_title(panel.across)} {spot.across:.6g}"
            ]
        return tips

    label = f"{panel.up} by {panel.across} of {len(panel.finalists)} finalists, with their first front"
    return Panel(drawing(f"front-{number}", label, PANEL, paint))


def _paint_spots(axes: Axes, spots: Sequence[Spot], look: Look, size: float, gid: str | None = None) -> None:
    axes.scatter(
        [spot.across for spot in spots],
        [spot.up for spot in spots],
        s=size,
        marker=look.marker,
        color=hexadecimal(look.colour),
        gid=gid,
        zorder=3,
    )
