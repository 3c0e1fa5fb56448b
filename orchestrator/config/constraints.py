"""Constraints on a champion, as `latency_ms <= 2 and (params <= 1e6 or accuracy >= 0.9)`: parsed, never run.

conditions = alternative {"and" alternative} | with "or" in the place of "and", which binds less
alternative = FIGURE ("<=" | ">=" | "<" | ">") NUMBER [UNIT] | "(" conditions ")"
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from orchestrator.config.picking.figures import ACCURACY as ACCURACY
from orchestrator.config.picking.figures import FIGURES, figure_named

_OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = MappingProxyType(
    {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
)
LONGEST: Final = 1000
"""Characters of a text of constraints."""
DEEPEST: Final = 20
"""Parentheses within each other."""
_TOKEN: Final = re.compile(r"\s*(<=|>=|==|!=|[<>=()%]|[+-]?[\d.][\w.]*(?:(?<=[eE])[+-]\d+)?|[^\s<>=!()%]+|!)")
_SPLIT: Final = re.compile(r"(?P<number>[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?P<unit>[A-Za-z]*)")
_FORM: Final = "write FIGURE <= NUMBER, joined by `and`, `or` and parentheses"


@dataclass(frozen=True)
class Constraint:
    """One comparison of a student's figure with a number."""

    field: str
    symbol: str
    bound: float

    @property
    def fields(self) -> frozenset[str]:
        """The figures that it is about."""
        return frozenset({self.field})

    def holds(self, figures: Mapping[str, float]) -> bool:
        """Whether these figures satisfy the comparison; a figure that is not known satisfies none."""
        value = figures.get(self.field)
        return value is not None and _OPERATORS[self.symbol](value, self.bound)

    def may_hold(self, figures: Mapping[str, float]) -> bool:
        """The same where figures that are missing may still turn out well."""
        return self.field not in figures or self.holds(figures)

    def distance(self, figures: Mapping[str, float]) -> float:
        """By how much it is missed, as a fraction of the bound; 0 where it holds."""
        if self.holds(figures):
            return 0.0
        value = figures.get(self.field, math.inf)
        return abs(value - self.bound) / max(abs(self.bound), 1e-12)

    def miss(self, figures: Mapping[str, float]) -> str:
        """By how much it is missed, in words; empty where it holds."""
        if self.holds(figures):
            return ""
        if self.field not in figures:
            return f"{self.field} is not known, so {self} is missed"
        value = figures[self.field]
        return f"{self.field} {value:.6g} misses {self} by {abs(value - self.bound):.4g}"

    def __str__(self) -> str:
        return f"{self.field} {self.symbol} {self.bound:.15g}"


@dataclass(frozen=True)
class Joined:
    """Conditions of which all must hold (`and`), or one (`or`)."""

    word: Literal["and", "or"]
    parts: tuple[Condition, ...]

    @property
    def fields(self) -> frozenset[str]:
        """The figures that it is about."""
        return frozenset(name for part in self.parts for name in part.fields)

    def holds(self, figures: Mapping[str, float]) -> bool:
        """Whether these figures satisfy it."""
        return self._of(part.holds(figures) for part in self.parts)

    def may_hold(self, figures: Mapping[str, float]) -> bool:
        """The same where figures that are missing may still turn out well."""
        return self._of(part.may_hold(figures) for part in self.parts)

    def distance(self, figures: Mapping[str, float]) -> float:
        """That of the part that decides: the worst of `and`, the nearest of `or`."""
        distances = [part.distance(figures) for part in self.parts]
        return max(distances) if self.word == "and" else min(distances)

    def miss(self, figures: Mapping[str, float]) -> str:
        """By how much it is missed, in words; empty where it holds."""
        if self.holds(figures):
            return ""
        return f" {self.word} ".join(text for part in self.parts if (text := part.miss(figures)))

    def _of(self, found: Iterable[bool]) -> bool:
        return all(found) if self.word == "and" else any(found)

    def __str__(self) -> str:
        shown = (f"({part})" if isinstance(part, Joined) else str(part) for part in self.parts)
        return f" {self.word} ".join(shown)


Condition = Constraint | Joined


def parse_constraints(text: str) -> tuple[Condition, ...]:
    """The conditions in `text` that must all hold.

    Raises:
        ValueError: it has another form, names a figure that no student has or that is of the test split, has
            a unit that is not the figure's, or an accuracy that is no fraction.
    """
    if len(text) > LONGEST:
        raise ValueError(f"constraints of {len(text):,} characters; allowed: {LONGEST:,}")
    found = _Parser(text).all()
    return found.parts if isinstance(found, Joined) and found.word == "and" else (found,)


def violated(conditions: Sequence[Condition], figures: Mapping[str, float]) -> list[Condition]:
    """The conditions that these figures break."""
    return [condition for condition in conditions if not condition.holds(figures)]


class _Parser:
    """Recursive descent over the words of one text."""

    def __init__(self, text: str) -> None:
        self._text = text.strip()
        self._words = _TOKEN.findall(text)
        self._next = 0
        self._depth = 0

    def all(self) -> Condition:
        found = self._either()
        if self._peek() is not None:
            raise self._refused(f"{self._peek()!r} is out of place")
        return found

    def _either(self) -> Condition:
        return self._joined("or", self._both)

    def _both(self) -> Condition:
        return self._joined("and", self._one)

    def _joined(self, word: Literal["and", "or"], part: Callable[[], Condition]) -> Condition:
        parts = [part()]
        while self._peek() == word:
            self._take()
            parts.append(part())
        flat: list[Condition] = []
        for each in parts:
            flat += each.parts if isinstance(each, Joined) and each.word == word else (each,)
        return flat[0] if len(flat) == 1 else Joined(word, tuple(flat))

    def _one(self) -> Condition:
        if self._peek() != "(":
            return self._comparison()
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._refused(f"more than {DEEPEST} parentheses within each other")
        self._take()
        found = self._either()
        if self._take() != ")":
            raise self._refused("a parenthesis is not closed")
        self._depth -= 1
        return found

    def _comparison(self) -> Constraint:
        name = self._take()
        if name == "not":
            raise self._refused("there is no `not`: turn the comparison round, as <= into >")
        if name is None or not re.fullmatch(r"[A-Za-z_]\w*", name) or name in ("and", "or"):
            raise self._refused("a figure is missing" if name is None else f"{name!r} is no figure")
        symbol = self._take()
        if symbol is None or symbol not in _OPERATORS:
            raise self._refused(f"after {name!r} comes one of {', '.join(_OPERATORS)}")
        field = figure_named(name)
        return Constraint(field, symbol, self._bound(field, name, symbol))

    def _bound(self, field: str, name: str, symbol: str) -> float:
        word = self._take()
        match = _SPLIT.fullmatch(word or "")
        if match is None:
            raise self._refused(f"{word!r} is no number" if word else f"after {symbol} comes a number")
        number, unit = float(match["number"]), match["unit"]
        if not math.isfinite(number):
            raise self._refused(f"{word!r} is larger than any figure")
        following = self._peek()
        if not unit and following not in (None, "and", "or", ")"):
            unit = self._take() or ""
        figure = FIGURES[field]
        if unit and unit not in figure.units:
            allowed = f"write {' or '.join(figure.units)}, or no unit" if figure.units else "write no unit"
            raise ValueError(f"{unit!r} behind {match['number']}: {field} has no such unit; {allowed}")
        bound = number / 100 if unit == "%" else number
        if figure.is_fraction and not 0 <= bound <= 1:
            clause = f"{name} {symbol} {match['number']}"
            meant = f"; did you mean {name} {symbol} {bound / 100:.15g}?" if 1 < bound <= 100 else ""
            what = "an accuracy" if field == ACCURACY else field
            raise ValueError(f"{clause!r}: {what} is a fraction; allowed: 0 to 1{meant}")
        return bound

    def _peek(self) -> str | None:
        return self._words[self._next] if self._next < len(self._words) else None

    def _take(self) -> str | None:
        word = self._peek()
        self._next += 1
        return word

    def _refused(self, why: str) -> ValueError:
        shown = self._text if len(self._text) <= 80 else f"{self._text[:77]}..."
        return ValueError(f"{shown!r} is no constraint: {why}; {_FORM}; figures: {', '.join(FIGURES)}")
