"""How figures, times and hyper-parameters are written for a person."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

UNKNOWN = "unknown"


def percent(mean: float | None, std: float | None = None) -> str:
    """A fraction in percent with two decimals, and its spread where there is one."""
    if mean is None:
        return UNKNOWN
    return f"{100 * mean:.2f}" if std is None else f"{100 * mean:.2f} ± {100 * std:.2f}"


def short_parameters(parameters: Mapping[str, Any]) -> str:
    """Hyper-parameters on one line, floats with three digits."""
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in parameters.items()
    )


def duration(seconds: float) -> str:
    """A time span in one or two units, rounded up: 40 s, 3 min, 2 h 5 min, 3 d 4 h."""
    if seconds <= 90:
        return f"{max(math.ceil(seconds), 0)} s"
    minutes = math.ceil(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def clock_time(seconds: float) -> str:
    """A time span as hours, minutes and seconds: 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def plain_percent(fraction: float | None) -> str:
    """A fraction in percent with its sign, or a dash where there is none."""
    return "-" if fraction is None else f"{100 * fraction:.2f} %"


def counted(number: int, what: str) -> str:
    """A number and its noun, in the plural where it is not one: 3 slots."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
