"""The colours of the report by name, in light and in dark, and how students are told apart in all charts."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import matplotlib as mpl
from matplotlib.colors import to_hex

RAMP_STEPS: Final = 16
"""Colours between the worst trial and the best."""


class Shade(NamedTuple):
    """One colour of the page, as it is on white paper and on a dark screen."""

    light: str
    dark: str


def _ramp() -> dict[str, Shade]:
    """From the worst to the best: viridis, with the best always the furthest from the background."""
    places = [step / (RAMP_STEPS - 1) for step in range(RAMP_STEPS)]
    viridis = mpl.colormaps["viridis"]
    # Its last tenth is a yellow that is hardly seen on white.
    return {
        f"ramp-{step}": Shade(to_hex(viridis(0.9 * (1 - place))), to_hex(viridis(0.15 + 0.85 * place)))
        for step, place in enumerate(places)
    }


# Okabe and Ito's colours, told apart by colour-blind readers too; brighter where the page is dark.
THEME: Final[Mapping[str, Shade]] = MappingProxyType(
    {
        "ink": Shade("#1f2328", "#e6e9ee"),
        "soft": Shade("#59616c", "#a9b2bd"),
        "line": Shade("#dfe3e8", "#363e49"),
        "paper": Shade("#ffffff", "#1a1f26"),
        "back": Shade("#f4f5f7", "#11151a"),
        "marked": Shade("#eaf4fb", "#14303f"),
        "accent": Shade("#00659e", "#6fbdf0"),
        "quiet": Shade("#9aa2ad", "#6d7683"),
        "blue": Shade("#0072b2", "#4fa9e2"),
        "vermilion": Shade("#d55e00", "#f08a45"),
        "green": Shade("#009e73", "#2cc79a"),
        "pink": Shade("#cc79a7", "#e3a0c5"),
        "orange": Shade("#e69f00", "#f2b93b"),
        "sky": Shade("#56b4e9", "#9ad4f7"),
        "grey-1": Shade("#444444", "#d0d4da"),
        "grey-2": Shade("#767676", "#a0a7b0"),
        "grey-3": Shade("#919191", "#828a94"),
        "violet": Shade("#7a3db8", "#b98cf0"),
        **_ramp(),
    }
)


class Look(NamedTuple):
    """How a group of students is drawn: by colour, marker and dashes, so that no reader needs the colour."""

    colour: str
    """A name of `THEME`."""
    marker: str
    dashes: tuple[float, ...] = ()
    """Lengths of dashes and gaps; none for a line without gaps."""


_COLOURS = ("blue", "vermilion", "green", "pink", "orange", "sky")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_DASHES: tuple[tuple[float, ...], ...] = ((), (7, 2), (2, 2), (7, 2, 2, 2), (12, 3), (4, 4))
CHAMPION_MARKER: Final = "*"
TEACHER: Final = Look("violet", "d", (1, 2))
QUIET: Final = Look("quiet", "o")


def student_look(number: int) -> Look:
    """That of the finalist, or objective, of this number from 0 on; a seventh shares the first's colour."""
    colour, turn = number % len(_COLOURS), number // len(_COLOURS)
    place = (number + turn) % len(_COLOURS)
    return Look(_COLOURS[colour], _MARKERS[place], _DASHES[place])


def control_look(number: int) -> Look:
    """That of the control of this number from 0 on: always grey."""
    return Look(f"grey-{number % 3 + 1}", "X", ((3, 2), (8, 3), (2, 4))[number % 3])


def hexadecimal(name: str) -> str:
    """The light colour of a name, which a drawing has until it becomes a variable of the page."""
    return THEME[name].light
