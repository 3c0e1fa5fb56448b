"""The domains that a search space is written in: one-key mappings under Ray Tune's own names, as data."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import Discriminator, Field, Tag, model_validator

from trainables.config.base import Config, FiniteFloat, Scalar

N_SD: Final = 3
"""A normal domain is drawn again beyond so many standard deviations, so that its bounds can be proven."""

FloatPair = tuple[FiniteFloat, FiniteFloat]
FloatTriple = tuple[FiniteFloat, FiniteFloat, FiniteFloat]
IntPair = tuple[int, int]
IntTriple = tuple[int, int, int]
Members = Annotated[tuple[Scalar, ...], Field(min_length=1, max_length=1000)]


class Domain(Config):
    """What every domain answers; its one field is named as Tune's function and holds its arguments."""

    @property
    def kind(self) -> str:
        """Tune's name of the domain."""
        return next(iter(type(self).model_fields))

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The arguments as written."""
        arguments: tuple[Any, ...] = getattr(self, self.kind)
        return arguments

    @abstractmethod
    def corners(self) -> tuple[Scalar, ...]:
        """The extreme values, or every member of a list."""

    @abstractmethod
    def contains(self, value: Scalar) -> bool:
        """Whether the domain can give this value."""

    @abstractmethod
    def tidy(self, drawn: Any) -> Scalar:
        """A drawn number (NumPy's too) as a plain one: on its step, within its bounds."""


class Range(Domain):
    """A domain between two bounds; `high` is a value that is still drawn."""

    whole: ClassVar[bool] = False
    log: ClassVar[bool] = False
    stepped: ClassVar[bool] = False

    @property
    def low(self) -> float:
        """The least value."""
        return float(self.arguments[0])

    @property
    def high(self) -> float:
        """The greatest value that is drawn: Tune's own upper bound is exclusive for plain integers."""
        upper = self.arguments[1]
        return float(upper - 1 if self.whole and not self.stepped else upper)

    @property
    def step(self) -> float | None:
        """Distance between neighbours, for quantised domains."""
        return float(self.arguments[2]) if self.stepped else None

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        lower, upper = self.arguments[:2]
        if not lower < upper:
            raise ValueError(f"the lower bound {lower:g} must lie below the upper bound {upper:g}")
        if self.log and lower <= 0:
            raise ValueError(f"a logarithmic domain needs a lower bound above 0, not {lower:g}")
        if self.step is not None:
            least = 2 if self.whole else 0
            if self.step < least or self.step <= 0:
                raise ValueError(
                    f"the step {self.step:g} must be {'2 or more; for 1 drop the q' if least else 'above 0'}"
                )
            for bound in (lower, upper):
                if not _is_multiple(bound, self.step):
                    raise ValueError(f"the bound {bound:g} must be a multiple of the step {self.step:g}")
        return self

    def corners(self) -> tuple[Scalar, ...]:
        """Least and greatest value."""
        return self._typed(self.low), self._typed(self.high)

    def contains(self, value: Scalar) -> bool:
        """Whether the number lies within the bounds and on the step."""
        if isinstance(value, bool | str) or (self.whole and not isinstance(value, int)):
            return False
        return self.low <= value <= self.high and (self.step is None or _is_multiple(value, self.step))

    def tidy(self, drawn: Any) -> Scalar:
        """The number on its step (0.3, not 0.30000000000000004) and within the bounds."""
        value = float(drawn)
        if self.step is not None:
            value = float(f"{round(value / self.step) * self.step:.12g}")
        return self._typed(min(max(value, self.low), self.high))

    def _typed(self, value: float) -> Scalar:
        return int(value) if self.whole else value


class Uniform(Range):
    """A real number, evenly."""

    uniform: FloatPair = Field(description="[low, high]")


class QUniform(Range):
    """A real number on a step, evenly."""

    stepped = True
    quniform: FloatTriple = Field(description="[low, high, step]")


class LogUniform(Range):
    """A real number, evenly in its logarithm."""

    log = True
    loguniform: FloatPair = Field(description="[low, high], low above 0")


class QLogUniform(Range):
    """A real number on a step, evenly in its logarithm."""

    log = True
    stepped = True
    qloguniform: FloatTriple = Field(description="[low, high, step], low above 0")


class RandInt(Range):
    """A whole number, evenly; the upper bound itself is not drawn."""

    whole = True
    randint: IntPair = Field(description="[low, high): high itself is not drawn")


class QRandInt(Range):
    """A whole number on a step, evenly, bounds included."""

    whole = True
    stepped = True
    qrandint: IntTriple = Field(description="[low, high, step], both bounds included")


class LogRandInt(Range):
    """A whole number, evenly in its logarithm; the upper bound itself is not drawn."""

    whole = True
    log = True
    lograndint: IntPair = Field(description="[low, high), low above 0: high itself is not drawn")


class QLogRandInt(Range):
    """A whole number on a step, evenly in its logarithm, bounds included."""

    whole = True
    log = True
    stepped = True
    qlograndint: IntTriple = Field(description="[low, high, step], low above 0, both bounds included")


class Bell(Domain):
    """A real number around a mean, never more than three standard deviations away."""

    @property
    def mean(self) -> float:
        """Centre."""
        return float(self.arguments[0])

    @property
    def sd(self) -> float:
        """Standard deviation."""
        return float(self.arguments[1])

    @model_validator(mode="after")
    def _spread(self) -> Self:
        if self.sd <= 0:
            raise ValueError(f"the standard deviation {self.sd:g} must be above 0")
        return self

    def corners(self) -> tuple[Scalar, ...]:
        """Three standard deviations either side."""
        return self.mean - N_SD * self.sd, self.mean + N_SD * self.sd

    def contains(self, value: Scalar) -> bool:
        """Whether the number lies within three standard deviations."""
        return not isinstance(value, bool | str) and abs(value - self.mean) <= N_SD * self.sd

    def tidy(self, drawn: Any) -> Scalar:
        """The number as it is."""
        return float(drawn)


class Randn(Bell):
    """A real number around a mean: Tune's name."""

    randn: FloatPair = Field(description="[mean, standard deviation]")


class Normal(Bell):
    """A real number around a mean: another name of randn."""

    normal: FloatPair = Field(description="[mean, standard deviation]")


class Listed(Domain):
    """One of a list."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for index, member in enumerate(self.arguments):
            if member in self.arguments[:index]:
                raise ValueError(f"the list holds {member!r} twice")
        return self

    def corners(self) -> tuple[Scalar, ...]:
        """Every member."""
        return self.arguments

    def contains(self, value: Scalar) -> bool:
        """Whether the value is a member."""
        return any(value == member for member in self.arguments)

    def tidy(self, drawn: Any) -> Scalar:
        """The member that equals the drawn value.

        Raises:
            ValueError: no member does.
        """
        for member in self.arguments:
            if member == drawn:
                value: Scalar = member
                return value
        raise ValueError(f"{drawn!r} is none of {list(self.arguments)}")


class OneOf(Listed):
    """One of a list, evenly; every one of them in a grid."""

    choice: Members = Field(description="the values")


class GridSearch(Listed):
    """Every one of a list; for the algorithm grid."""

    grid_search: Members = Field(description="the values, each of which is tried")


_CONSTANT: Final = "constant"


def _kind_of(value: object) -> str | None:
    if isinstance(value, Domain):
        return value.kind
    if isinstance(value, Mapping):
        key = str(next(iter(value))) if len(value) == 1 else None
        return None if key == _CONSTANT else key
    return _CONSTANT if isinstance(value, bool | int | float | str) else None


def _is_multiple(value: float, step: float) -> bool:
    ratio = value / step
    return math.isclose(ratio, round(ratio), rel_tol=1e-9, abs_tol=1e-9)


Dimension = Annotated[
    Annotated[Uniform, Tag("uniform")]
    | Annotated[QUniform, Tag("quniform")]
    | Annotated[LogUniform, Tag("loguniform")]
    | Annotated[QLogUniform, Tag("qloguniform")]
    | Annotated[RandInt, Tag("randint")]
    | Annotated[QRandInt, Tag("qrandint")]
    | Annotated[LogRandInt, Tag("lograndint")]
    | Annotated[QLogRandInt, Tag("qlograndint")]
    | Annotated[Randn, Tag("randn")]
    | Annotated[Normal, Tag("normal")]
    | Annotated[OneOf, Tag("choice")]
    | Annotated[GridSearch, Tag("grid_search")]
    | Annotated[Scalar, Tag(_CONSTANT)],
    Discriminator(_kind_of),
]
"""A domain, or a plain value that is not searched."""
