"""The scales of axes: logarithmic where values span a decade or the space searches them so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullLocator

LOG_FROM: Final = 10.0
FEW_DECADES: Final = 300.0
"""Over a wider span, ticks stand at powers of ten alone."""


def spans_decades(values: Sequence[float], least: float = LOG_FROM) -> bool:
    """Whether the largest of these is so many times the least, and all are above zero."""
    return bool(values) and min(values) > 0 and max(values) / min(values) >= least


def scale_x(axes: Axes, values: Sequence[float], *, log: bool, counts: bool = False) -> None:
    """Set the horizontal axis for these values, with round ticks; `counts` are written as 20k or 3M."""
    if log:
        axes.set_xscale("log")
        span = max(values) / min(values)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if span > FEW_DECADES else (1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    written = EngFormatter(sep="") if counts else FuncFormatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_major_formatter(written)


def room_above(axes: Axes, heights: Sequence[float], share: float = 0.08) -> None:
    """Set the vertical range to these heights with some room."""
    if heights:
        pad = max(share * (max(heights) - min(heights)), 0.1)
        axes.set_ylim(min(heights) - pad, max(heights) + pad)
