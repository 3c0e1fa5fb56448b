"""Importance of parameters as bars, with what chance alone gets."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from orchestrator.reports.charts.chart import Chart, Key, Panel, Table
from orchestrator.reports.charts.palette import Look, hexadecimal
from orchestrator.reports.charts.svg import NO_TIPS, Tips, axes_of, drawing, plain_label
from orchestrator.reports.importance import CHANCE, Importances, Share

MOST_BARS = 12
_BAR, _CHANCE, _TOP = Look("blue", "s"), Look("grey-3", "s"), Look("vermilion", "D")


def importance_chart(found: Sequence[Importances]) -> Chart | None:
    """A panel for each comparison; none where there is none."""
    if not found:
        return None
    keys = [
        Key("share of what the parameter explains, ± one standard deviation", _BAR, "marker"),
        Key(f"the same of {CHANCE}", _CHANCE, "marker"),
    ]
    if any(share.top is not None for each in found for share in each.shares):
        keys.append(Key("share in being among the best tenth (PED-ANOVA)", _TOP, "marker"))
    rows = [
        (each.about, share.name, f"{100 * share.mean:.1f} ± {100 * share.std:.1f}", _percent(share.top))
        for each in found
        for share in each.shares
    ]
    columns = ("trials", "parameter", "importance, %", "in being among the best tenth, %")
    panels = [_panel(number, each) for number, each in enumerate(found)]
    return Chart("importance", panels, keys, Table(columns, rows))


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _panel(number: int, found: Importances) -> Panel:
    shown = found.shares[:MOST_BARS]
    shown += [share for share in found.shares[MOST_BARS:] if share.name == CHANCE]
    height = 70 + 26 * len(shown)
    label = f"Importance of {len(found.shares) - 1} parameters in {found.about} ({found.n_trials})"
    return Panel(
        drawing(f"importance-{number}", label, (420, height), lambda figure: _paint(figure, found, shown))
    )


def _paint(figure: Figure, found: Importances, shown: Sequence[Share]) -> Tips:
    axes = axes_of(figure, left=150, top=26)
    axes.set_title(
        f"{plain_label(found.about)} ({found.n_trials:,})", loc="left", fontsize=13, fontweight="bold"
    )
    places = list(range(len(shown)))
    looks = [_CHANCE if share.name == CHANCE else _BAR for share in shown]
    axes.barh(
        places,
        [100 * share.mean for share in shown],
        xerr=[100 * share.std for share in shown],
        height=0.6,
        color=[hexadecimal(look.colour) for look in looks],
        ecolor=hexadecimal("ink"),
    )
    tops = [(place, share.top) for place, share in zip(places, shown, strict=True) if share.top is not None]
    if tops:
        axes.scatter(
            [100 * top for _, top in tops],
            [place for place, _ in tops],
            marker=_TOP.marker,
            color=hexadecimal(_TOP.colour),
            edgecolors=hexadecimal("paper"),
            zorder=3,
        )
    axes.set_yticks(places, [plain_label(share.name, 22) for share in shown])
    axes.set(xlabel="importance, %", ylim=(len(shown) - 0.4, -0.6))
    axes.set_xlim(left=0)
    axes.grid(visible=False, axis="y")
    return NO_TIPS
