"""Reliability diagrams: how often answers of a confidence are right, beside what that confidence promises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from orchestrator.reports.charts.answered import Answered
from orchestrator.reports.charts.chart import Chart, Key, Panel, Table
from orchestrator.reports.charts.palette import Look, hexadecimal
from orchestrator.reports.charts.svg import Tips, axes_of, drawing

_SIZE = (420, 350)
_PROMISED = Look("ink", "o", (5, 4))


class Bin(NamedTuple):
    """Images whose confidence lies between two bounds; all in per cent."""

    lower: float
    upper: float
    images: int
    confidence: float
    accuracy: float


def bins_of(network: Answered) -> list[Bin]:
    """Those that hold an image."""
    rows = network.answers.bins_E3.tolist()
    step = 100 / len(rows)
    return [
        Bin(step * number, step * (number + 1), int(images), 100 * confidence, 100 * accuracy)
        for number, (images, confidence, accuracy) in enumerate(rows)
        if images
    ]


def reliability_chart(networks: Sequence[Answered]) -> Chart | None:
    """A panel a network; none without any."""
    if not networks:
        return None
    keys = [
        Key(f"accuracy of the {each.name}", each.look._replace(marker="s"), "marker") for each in networks
    ]
    keys.append(Key("accuracy = confidence", _PROMISED, "line"))
    columns = ("network", "confidence, %", "images", "mean confidence, %", "accuracy, %")
    rows = [
        (
            each.name,
            f"{found.lower:.1f} to {found.upper:.1f}",
            f"{found.images:,}",
            f"{found.confidence:.2f}",
            f"{found.accuracy:.2f}",
        )
        for each in networks
        for found in bins_of(each)
    ]
    panels = [_panel(number, each) for number, each in enumerate(networks)]
    return Chart("reliability", panels, keys, Table(columns, rows))


def _panel(number: int, network: Answered) -> Panel:
    bins, ece = bins_of(network), network.answers.figures["ece"]
    colour = hexadecimal(network.look.colour)

    def paint(figure: Figure) -> Tips:
        above = axes_of(figure, left=58, top=28, bottom=122)
        above.set_title(f"{network.name}, ece {ece:.4f}", loc="left", fontsize=13, fontweight="bold")
        middles, widths = [(b.lower + b.upper) / 2 for b in bins], [0.92 * (b.upper - b.lower) for b in bins]
        above.bar(middles, [b.accuracy for b in bins], widths, color=colour, gid="bins")
        ink, dashes = hexadecimal(_PROMISED.colour), (0, _PROMISED.dashes)
        above.plot([0, 100], [0, 100], color=ink, linestyle=dashes, lw=1.5)
        above.set(xlim=(0, 100), ylim=(0, 103), ylabel="accuracy, %")
        above.tick_params(labelbottom=False)
        below = axes_of(figure, left=58, top=246, bottom=44)
        below.bar(middles, [b.images for b in bins], widths, color=hexadecimal("quiet"))
        below.set(xlim=(0, 100), xlabel="confidence, %", ylabel="images")
        below.yaxis.set_major_locator(MaxNLocator(nbins=2, integer=True))
        return {}

    label = f"Reliability of the {network.name}: accuracy by confidence, expected calibration error {ece:.4f}"
    return Panel(drawing(f"reliability-{number}", label, _SIZE, paint))
