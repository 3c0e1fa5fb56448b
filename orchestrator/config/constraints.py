"""Constraints on a champion, as `latency_ms <= 2 and params <= 1e6`: parsed, never evaluated as code."""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

ACCURACY: Final = "selection_accuracy"
"""The mean, over the seeds of a finalist, of the figure that ranks, as the table shows it; a fraction."""
FIELDS: Final = ("params", "size_bytes", "latency_ms", ACCURACY)
_OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = MappingProxyType(
    {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
)
_CLAUSE: Final = re.compile(r"^\s*(\w+)\s*(<=|>=|<|>)\s*([0-9.eE+_-]+)\s*$")


@dataclass(frozen=True)
class Constraint:
    """One comparison of a student's figure with a number."""

    field: str
    symbol: str
    bound: float

    @property
    def is_of_costs(self) -> bool:
        """Whether it is known of a student before that is trained with several seeds."""
        return self.field != ACCURACY

    def holds(self, figures: Mapping[str, float]) -> bool:
        """Whether these figures satisfy the comparison."""
        return _OPERATORS[self.symbol](figures[self.field], self.bound)

    def __str__(self) -> str:
        return f"{self.field} {self.symbol} {self.bound:.15g}"


def parse_constraints(text: str) -> tuple[Constraint, ...]:
    """The comparisons in `text`, joined by `and`.

    Raises:
        ValueError: a clause that is no comparison, a figure that no student has, or an accuracy that is no
            fraction.
    """
    return tuple(_parse_clause(clause) for clause in re.split(r"\band\b", text))


def violated(constraints: Sequence[Constraint], figures: Mapping[str, float]) -> list[Constraint]:
    """The constraints that these figures break."""
    return [constraint for constraint in constraints if not constraint.holds(figures)]


def _parse_clause(clause: str) -> Constraint:
    match = _CLAUSE.match(clause)
    if match is None:
        raise ValueError(
            f"{clause.strip()!r} is no constraint; write FIGURE <= NUMBER joined by `and`; "
            f"figures: {', '.join(FIELDS)}"
        )
    name, symbol, number = match.groups()
    if name not in FIELDS:
        near = difflib.get_close_matches(name, FIELDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown figure {name!r} in a constraint; known: {', '.join(FIELDS)}{hint}")
    try:
        bound = float(number)
    except ValueError as error:
        raise ValueError(f"{number!r} in {clause.strip()!r} is no number") from error
    if name == ACCURACY and not 0 <= bound <= 1:
        meant = f"; did you mean {name} {symbol} {bound / 100:.15g}?" if 1 < bound <= 100 else ""
        raise ValueError(f"{clause.strip()!r}: an accuracy is a fraction; allowed: 0 to 1{meant}")
    return Constraint(name, symbol, bound)
