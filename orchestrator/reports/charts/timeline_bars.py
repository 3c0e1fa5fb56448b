"""The timeline of a run: stages above, below them the students that were trained at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from orchestrator.reports.charts.chart import Chart, Key, Table, in_two_sizes
from orchestrator.reports.charts.palette import Look, hexadecimal
from orchestrator.reports.charts.svg import NO_TIPS, Tips, axes_of
from orchestrator.reports.run_facts import RunFacts
from orchestrator.reports.timeline import Span, StageSpan, kind_of, stage_spans, time_rows, training_spans
from orchestrator.terminal.formatting import counted, duration, percent

LOOKS: Final[Mapping[str, Look]] = MappingProxyType(
    {
        "completed": Look("blue", "s"),
        "pruned": Look("orange", "v"),
        "failed": Look("vermilion", "X"),
        "running": Look("sky", "o"),
        "finalist": Look("green", "D"),
        "control": Look("grey-2", "P"),
    }
)
HEIGHTS: Final[Mapping[str, float]] = MappingProxyType({"pruned": 0.45, "failed": 0.2})
"""Of a row; all other students fill most of it, so that kinds are told apart without their colours."""
FULL: Final = 0.84
UNITS: Final = (
    (3 * 86400, 86400, "days"),
    (3 * 3600, 3600, "hours"),
    (240, 60, "minutes"),
    (0, 1, "seconds"),
)
NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "completed": "completed trial",
        "pruned": "trial stopped early (half the height)",
        "failed": "failed trial (a thin line)",
        "running": "trial in training",
        "finalist": "finalist, a seed each",
        "control": "control, a seed each",
    }
)


def timeline_chart(facts: RunFacts) -> Chart | None:
    """The chart; none where nothing was trained."""
    spans, stages = training_spans(facts), stage_spans(facts)
    if not spans:
        return None
    rows = 1 + max(span.row for span in spans)
    row_height = 22 if rows <= 12 else max(260 / rows, 4)
    height = 150 + rows * row_height
    kinds = {kind_of(span.record) for span in spans}
    keys = [Key(NAMES[kind], look, "marker") for kind, look in LOOKS.items() if kind in kinds]
    label = f"Timeline: {counted(len(spans), 'student')} in {counted(rows, 'row')} of those trained at once"
    panel = in_two_sizes(
        "timeline",
        label,
        (height, height),
        lambda figure, is_narrow: _paint(figure, spans, stages, is_narrow),
    )
    columns = ("students", "how many", "epochs", "time in slots", "share")
    table = Table(columns, time_rows(spans), "Time in slots by kind of student")
    return Chart("timeline", [panel], keys, table)


def _paint(figure: Figure, spans: Sequence[Span], stages: Sequence[StageSpan], is_narrow: bool) -> Tips:
    rows = 1 + max(span.row for span in spans)
    last = max([span.end_s for span in spans] + [stage.end_s for stage in stages])
    _, unit, name = next(each for each in UNITS if last >= each[0])
    axes = axes_of(figure, left=16, top=6)
    axes.set(xlim=(0, last / unit), ylim=(rows - 0.4, -2.4), xlabel=f"{name} since the start", yticks=[])
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5 if is_narrow else 10))
    axes.spines["left"].set_visible(False)
    _paint_stages(axes, stages, unit, 330 if is_narrow else 1130)
    axes.add_collection(
        PolyCollection(
            [_box(span, unit) for span in spans],
            facecolors=[hexadecimal(LOOKS[kind_of(span.record)].colour) for span in spans],
            edgecolors=hexadecimal("paper"),
            linewidths=0.6,
            clip_on=False,
            gid="students",
        )
    )
    tips = {"stages": [_stage_tip(stage) for stage in stages], "students": list(map(_tip, spans))}
    return NO_TIPS if is_narrow else {gid: texts for gid, texts in tips.items() if texts}


def _box(span: Span, unit: float) -> list[tuple[float, float]]:
    half = HEIGHTS.get(kind_of(span.record), FULL) / 2
    start, end = span.start_s / unit, span.end_s / unit
    low, high = span.row - half, span.row + half
    return [(start, low), (start, high), (end, high), (end, low)]


def _paint_stages(axes: Axes, stages: Sequence[StageSpan], unit: float, width: float) -> None:
    """A band above the students; a stage has its name there where it is long enough."""
    if not stages:
        return
    spans = [(stage.start_s / unit, stage.end_s / unit) for stage in stages]
    axes.add_collection(
        PolyCollection(
            [[(a, -2.1), (a, -1.0), (b, -1.0), (b, -2.1)] for a, b in spans],
            facecolors=hexadecimal("line"),
            edgecolors=hexadecimal("soft"),
            linewidths=0.8,
            gid="stages",
        )
    )
    whole = axes.get_xlim()[1]
    for stage, (start, end) in zip(stages, spans, strict=True):
        if (end - start) / whole * width > 7 * len(stage.name) + 6:
            axes.text((start + end) / 2, -1.55, stage.name, ha="center", va="center", fontsize=11)


def _stage_tip(stage: StageSpan) -> str:
    return f"{stage.name}: {duration(stage.end_s - stage.start_s)}"


def _tip(span: Span) -> str:
    record = span.record
    reached = "" if record.score is None else f": {percent(record.score)} %"
    took = f"{counted(span.epochs, 'epoch')} in {duration(span.end_s - span.start_s)}"
    return f"{record.trial} ({kind_of(record)}){reached}; {took}"
