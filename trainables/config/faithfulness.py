"""How teacher and student are compared around images."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, field_validator

from trainables.config.base import Config

Epsilon = Annotated[float, Field(gt=0, le=255, allow_inf_nan=False)]


class ConfidenceOf(StrEnum):
    """The class whose probability is a network's confidence."""

    LABEL = "label"
    TEACHER = "teacher"
    """The class that the teacher gives at that very point, which away from the image may be another."""


class BallSearch(Config):
    """How the balls of the maximum norm around images are searched for what is worst in them.

    Radii, steps and restarts are those that the reference of the methods recommends.
    """

    epsilons: tuple[Epsilon, ...] = Field(
        (1.0, 2.0, 4.0, 8.0),
        min_length=1,
        description="radii, in levels of 0 to 255; ascending, whatever their order was",
    )
    steps: int = Field(20, ge=1, le=1000, description="of each ascent, a forward and a backward pass each")
    restarts: int = Field(
        5, ge=1, le=1000, description="ascents for each figure; all but the first begin at random"
    )
    samples: int = Field(1000, ge=1, description="images of the split at most, drawn by the seed")
    seed: int = Field(0, ge=0, lt=2**31, description="of the draw and of where ascents begin")
    confidence_of: ConfidenceOf = ConfidenceOf.LABEL

    @field_validator("epsilons")
    @classmethod
    def _ascending(cls, epsilons: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted(set(epsilons)))
