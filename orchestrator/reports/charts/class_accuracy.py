"""Accuracy of teacher, control and champion on each class, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from matplotlib.figure import Figure
from scipy.special import ndtri  # type: ignore[import-untyped]

from orchestrator.reports.charts.answered import Answered
from orchestrator.reports.charts.chart import Chart, Key, Table, in_two_sizes
from orchestrator.reports.charts.palette import hexadecimal
from orchestrator.reports.charts.svg import NO_TIPS, Tips, axes_of, plain_label
from trainables.evaluation.answers_file import KeptAnswers

MOST_DRAWN: Final = 20
MOST_ROWS: Final = 200
"""Classes of the table."""


class ClassAccuracy(NamedTuple):
    """How often images of a class are named rightly: fractions."""

    accuracy: float
    low: float
    high: float


class OneClass(NamedTuple):
    """One class, with what each network reaches on it, in the order of the networks."""

    name: str
    images: int
    reached: list[ClassAccuracy]


def wilson_interval(right: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Bounds of a probability of which `right` of `count` draws, 1 or more, are a sample.

    Wilson (1927): (p + z²/2n ± z·sqrt(p(1 - p)/n + z²/4n²)) / (1 + z²/n). Unlike the normal interval it has a
    width where all draws are right, lies within 0 and 1, and holds p, to the last bit too.
    """
    z2 = float(ndtri(0.5 + level / 2)) ** 2
    share, whole = right / count, 1 + z2 / count
    middle = (share + z2 / (2 * count)) / whole
    half = math.sqrt(z2 * (share * (1 - share) / count + z2 / (4 * count**2))) / whole
    # Where all draws are right or wrong a bound is p itself, and rounding puts it on either side.
    return min(max(middle - half, 0.0), share), max(min(middle + half, 1.0), share)


def classes_of(kept: KeptAnswers, networks: Sequence[Answered]) -> list[OneClass]:
    """Those that have images; of many the worst of the last network, the champion, first."""
    found = [
        OneClass(
            name,
            images,
            [_reached(int(network.answers.right_C[place]), images) for network in networks],
        )
        for place, (name, images) in enumerate(zip(kept.classes, kept.images_C.tolist(), strict=True))
        if images
    ]
    if len(found) > MOST_DRAWN:
        found.sort(key=lambda one: one.reached[-1].accuracy)
    return found


def class_chart(kept: KeptAnswers, networks: Sequence[Answered]) -> Chart:
    """A row a class, a mark a network."""
    classes = classes_of(kept, networks)
    drawn = classes[:MOST_DRAWN]
    height = 62 + (14 + 10 * len(networks)) * len(drawn)
    names = ", ".join(network.name for network in networks)
    panel = in_two_sizes(
        "classes",
        f"Accuracy of {names} on each of {len(drawn)} classes",
        (height, height),
        lambda figure, is_narrow: _paint(figure, drawn, networks, is_narrow),
    )
    keys = [Key(network.name, network.look) for network in networks]
    columns = ("class", "images", *(f"{network.name}, % [95 % interval]" for network in networks))
    rows = [
        (one.name, f"{one.images:,}", *(_cell(reached) for reached in one.reached))
        for one in classes[:MOST_ROWS]
    ]
    return Chart("classes", [panel], keys, Table(columns, rows))


def _reached(right: int, images: int) -> ClassAccuracy:
    return ClassAccuracy(right / images, *wilson_interval(right, images))


def _cell(reached: ClassAccuracy) -> str:
    return f"{100 * reached.accuracy:.2f} [{100 * reached.low:.1f}, {100 * reached.high:.1f}]"


def _paint(
    figure: Figure, classes: Sequence[OneClass], networks: Sequence[Answered], is_narrow: bool
) -> Tips:
    axes = axes_of(figure, left=118 if is_narrow else 190, top=8)
    for number, network in enumerate(networks):
        reached = [one.reached[number] for one in classes]
        offset = 0.24 * (number - (len(networks) - 1) / 2)
        axes.errorbar(
            [100 * each.accuracy for each in reached],
            [place + offset for place in range(len(classes))],
            xerr=[
                [100 * (each.accuracy - each.low) for each in reached],
                [100 * (each.high - each.accuracy) for each in reached],
            ],
            color=hexadecimal(network.look.colour),
            marker=network.look.marker,
            markersize=9 if network.look.marker == "*" else 6,
            linestyle="none",
            elinewidth=1.5,
        )
    names = [plain_label(one.name, 14 if is_narrow else 24) for one in classes]
    axes.set_yticks(range(len(classes)), names)
    axes.set(xlabel="test accuracy, %", ylim=(len(classes) - 0.4, -0.6))
    axes.set_xlim(right=101)
    axes.grid(visible=False, axis="y")
    return NO_TIPS
