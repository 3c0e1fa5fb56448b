"""What a benchmark gives: a figure with its bound, and the file in which figures are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.local_files import replace_text


@dataclass(frozen=True)
class Bound:
    """A limit that a figure must keep."""

    limit: float
    at_least: bool = False
    """Whether the figure must reach the limit; else it must not pass it."""

    def holds(self, value: float) -> bool:
        """Whether a value keeps the limit; what is no number keeps none."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g}"


@dataclass(frozen=True)
class Figure:
    """One measured number."""

    value: float
    unit: str
    how: str
    """One sentence: what was measured, on which machine, with which versions and sizes."""
    bound: Bound | None = None

    @property
    def ok(self) -> bool:
        """Whether the bound holds; a figure without one is for comparison only."""
        return self.bound is None or self.bound.holds(self.value)

    def line(self, name: str) -> str:
        """Name, value, unit, bound and verdict."""
        bound = "no bound" if self.bound is None else str(self.bound)
        return f"{name:<32} {self.value:>9.3f} {self.unit:<4} {bound:<9} {'ok' if self.ok else 'BROKEN'}"

    def plain(self) -> dict[str, Any]:
        """Plain data for the file; `ok` tells on which side of the bound the value must lie."""
        limit = None if self.bound is None else self.bound.limit
        return {"value": self.value, "unit": self.unit, "bound": limit, "ok": self.ok, "how": self.how}


def read_figures(path: Path) -> dict[str, Any]:
    """The entries of a file of figures by name; none when there is no file."""
    if not path.exists():
        return {}
    entries: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return entries


def write_figures(path: Path, entries: Mapping[str, Any]) -> None:
    """Replace the file as a whole, so that an interrupted run leaves no half of it."""
    replace_text(path, json.dumps(entries, indent=2, allow_nan=False) + "\n")
