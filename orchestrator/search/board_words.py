"""What a board of trials calls its work and its students."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from trainables.config.metrics import RankBy


@dataclass(frozen=True)
class Words:
    """What a board calls its work."""

    title: str
    waiting: str
    """What a trial does that has not ended and does not run."""


SEARCH: Final = Words("search", "paused")


@dataclass(frozen=True)
class Student:
    """What the board says of a student."""

    name: str
    objective: str
    epochs: int
    """That it is trained for."""
    rank_by: RankBy = RankBy.ACCURACY
