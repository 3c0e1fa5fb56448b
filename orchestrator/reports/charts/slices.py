"""Slices: what ranks students over each searched parameter, a panel each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from matplotlib.figure import Figure

from orchestrator.records.ledger import TrialRecord
from orchestrator.records.selection import rank_trials, score_of
from orchestrator.reports.charts.chart import MOST_WITH_TIPS, PANEL, Chart, Key, Panel
from orchestrator.reports.charts.palette import QUIET, Look, hexadecimal, student_look
from orchestrator.reports.charts.scales import room_above, scale_x
from orchestrator.reports.charts.search_axes import SearchAxis, search_axes, searched_row
from orchestrator.reports.charts.svg import NO_TIPS, Tips, axes_of, drawing, plain_label
from orchestrator.reports.run_facts import RunFacts
from orchestrator.terminal.formatting import percent, short_parameters

MOST_PANELS: Final = 16
TOLD_APART: Final = 6
"""Objectives with a colour and a marker of their own: those of most trials."""
LEAST_TRIALS: Final = 3


def slice_axes(facts: RunFacts) -> list[SearchAxis]:
    """The parameters that panels are of: those that most completed trials have, at most so many."""
    completed = rank_trials(facts.records)
    if len(completed) < LEAST_TRIALS:
        return []
    axes = search_axes(completed, facts.log_domains)
    counts = Counter(name for record in completed for name in searched_row(record))
    kept = sorted(axes, key=lambda axis: -counts[axis.name])[:MOST_PANELS]
    return [axis for axis in axes if axis in kept]


def slices_chart(facts: RunFacts) -> Chart | None:
    """A panel a parameter, of completed trials: a stopped one had a smaller budget; none of too few."""
    axes, completed = slice_axes(facts), rank_trials(facts.records)
    if not axes:
        return None
    looks = _looks(completed)
    keys = [Key(name, look, "marker") for name, look in looks.items()]
    others = {record.objective for record in completed} - looks.keys()
    keys += [Key(f"{len(others)} other objectives", QUIET, "marker")] if others else []
    panels = [_panel(facts, number, axis, completed, looks) for number, axis in enumerate(axes)]
    return Chart("slices", panels, keys if len(keys) > 1 else ())


def _looks(records: Sequence[TrialRecord]) -> dict[str, Look]:
    counts = Counter(record.objective for record in records)
    named = [name for name, _ in counts.most_common(TOLD_APART)]
    return {name: student_look(number) for number, name in enumerate(sorted(named))}


def _panel(
    facts: RunFacts,
    number: int,
    axis: SearchAxis,
    records: Sequence[TrialRecord],
    looks: Mapping[str, Look],
) -> Panel:
    having = [record for record in records if searched_row(record).get(axis.name) is not None]

    def paint(figure: Figure) -> Tips:
        axes = axes_of(figure, left=58)
        axes.set(xlabel=plain_label(axis.title), ylabel=f"selection {facts.rank_by.label}, %")
        if axis.numeric:
            scale_x(axes, axis.values, log=axis.log)
        else:
            names = [plain_label(str(value), 60 // max(len(axis.values), 4) + 3) for value in axis.values]
            axes.set_xticks(range(len(names)), names, rotation=30 if len(names) > 6 else 0)
            axes.set_xlim(-0.6, len(names) - 0.4)
        room_above(axes, [100 * score_of(record) for record in having])
        tips: dict[str, Sequence[str]] = {}
        for place, name in enumerate([*looks, None]):
            own = [r for r in having if (r.objective if r.objective in looks else None) == name]
            if own:
                look = looks[name] if name else QUIET
                axes.scatter(
                    [_place(axis, record, order) for order, record in enumerate(own)],
                    [100 * score_of(record) for record in own],
                    s=34,
                    marker=look.marker,
                    color=hexadecimal(look.colour),
                    alpha=0.8,
                    linewidths=0,
                    gid=f"slice-{place}",
                )
                tips[f"slice-{place}"] = list(map(_tip, own))
        return tips if len(records) <= MOST_WITH_TIPS else NO_TIPS

    label = f"Selection {facts.rank_by.label} over {axis.title}: {len(having)} trials"
    return Panel(drawing(f"slice-{number}", label, PANEL, paint))


def _place(axis: SearchAxis, record: TrialRecord, order: int) -> float:
    """Where a trial stands; those with the same member of a list beside each other."""
    value = searched_row(record)[axis.name]
    if axis.numeric:
        return float(value)
    return axis.values.index(str(value)) + 0.08 * (order % 7 - 3)


def _tip(record: TrialRecord) -> str:
    return (
        f"{record.trial}: {percent(score_of(record))} %\n"
        f"{record.objective}: {short_parameters(record.parameters)}"
    )
