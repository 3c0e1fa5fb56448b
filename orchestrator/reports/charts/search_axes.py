"""What a search varied, as axes: numbers on a line, linear or logarithmic, and lists of values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.records.ledger import TrialRecord

LOG_FROM: Final = 8.0
"""Where the space says nothing, an axis is logarithmic if the largest value is so many times the least."""


@dataclass(frozen=True)
class SearchAxis:
    """One parameter of a search."""

    name: str
    values: tuple[Any, ...]
    """Distinct values: all of a list as text, sorted, or (lowest, highest) of a number."""
    numeric: bool
    log: bool

    def height(self, value: Any) -> float:
        """Where a value stands, 0 to 1."""
        if not self.numeric:
            return self.values.index(str(value)) / max(len(self.values) - 1, 1)
        low, high, number = (math.log(v) if self.log else float(v) for v in (*self.values, value))
        return (number - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """Heights and labels: every member of a list, or five steps of a number."""
        if not self.numeric:
            return [(self.height(value), str(value)[:24]) for value in self.values]
        low, high = (math.log(v) if self.log else float(v) for v in self.values)
        steps = [low + (high - low) * step / 4 for step in range(5)]
        return [(step / 4, f"{math.exp(v) if self.log else v:.3g}") for step, v in enumerate(steps)]

    @property
    def title(self) -> str:
        """Its name, and whether it is logarithmic."""
        return f"{self.name} (log)" if self.log else self.name


def searched_row(record: TrialRecord) -> dict[str, Any]:
    """What a trial has of what was searched, its objective first."""
    return {"objective": record.objective, **record.parameters}


def search_axes(records: Sequence[TrialRecord], log_domains: Mapping[str, bool]) -> list[SearchAxis]:
    """The axes in the order in which the search names them; none that never varied."""
    rows = [searched_row(record) for record in records]
    names = dict.fromkeys(name for row in rows for name in row)
    axes = (
        axis_of(name, [row[name] for row in rows if row.get(name) is not None], log_domains.get(name))
        for name in names
    )
    return [axis for axis in axes if axis is not None]


def axis_of(name: str, values: Sequence[Any], log: bool | None = None) -> SearchAxis | None:
    """The axis of these values; none where they are all the same. `log` is what the space says of it."""
    distinct = {str(value) for value in values}
    if len(distinct) < 2:
        return None
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        low, high = min(values), max(values)
        spans = low > 0 and high / low >= LOG_FROM
        return SearchAxis(name, (low, high), numeric=True, log=low > 0 and (spans if log is None else log))
    return SearchAxis(name, tuple(sorted(distinct)), numeric=False, log=False)
