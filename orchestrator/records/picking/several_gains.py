"""Gains of several finalists looked at together: the best of many more often looks good by chance alone.

Each gain of m is tested by Student's paired t over its n seeds, two-sided, and the p values are stepped down
by Holm (1979): sorted ascending, p_(i) is times m - i + 1, and no smaller than the one before. Where gains
are none, a run then calls one of them real with a probability of at most 5 %, however they hang together, as
they do over a common control.

Holm's procedure has no simple intervals of its own. Those stated are Bonferroni's: each at 1 - 0.05 / m, so
that with 95 % all of them hold their true gains at once. They are the wider ones: a gain may be significant
by Holm while its interval reaches 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from pydantic import Field
from scipy.special import stdtr, stdtrit  # type: ignore[import-untyped]

from orchestrator.records.selection import CONFIDENCE, PairedDifference
from trainables.config import Config

LEVEL: Final = 1 - CONFIDENCE


class Together(Config):
    """One gain of several."""

    gains: int = Field(ge=2, description="that were looked at together")
    p: float = Field(ge=0, le=1, description="two-sided, of the paired t-test, for this gain alone")
    p_holm: float = Field(ge=0, le=1, description="the same, stepped down by Holm over all gains")
    low: float = Field(description="lower end of the interval that holds together with the others at 95 %")
    high: float = Field(description="its upper end")

    @property
    def is_significant(self) -> bool:
        """Whether this gain is none of chance at 5 % over all of them."""
        return self.p_holm < LEVEL


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order in which they are given."""
    adjusted = [0.0] * len(p_values)
    least = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda each: p_values[each])):
        least = max(least, min((len(p_values) - rank) * p_values[place], 1.0))
        adjusted[place] = least
    return adjusted


def p_value(gain: PairedDifference) -> float | None:
    """Two-sided, of Student's paired t-test that the true mean is 0; none for one seed."""
    if gain.std is None:
        return None
    if gain.std == 0:
        return 1.0 if gain.mean == 0 else 0.0
    t = gain.mean / (gain.std / math.sqrt(gain.n))
    return float(2 * stdtr(gain.n - 1, -abs(t)))


def together(gains: Sequence[PairedDifference | None]) -> list[Together | None]:
    """What is to be said of each gain; none where it is none or of one seed, and where it is the only one."""
    tested = [
        (place, gain, p)
        for place, gain in enumerate(gains)
        if gain is not None and (p := p_value(gain)) is not None
    ]
    found: list[Together | None] = [None] * len(gains)
    if len(tested) < 2:
        return found
    adjusted = holm([p for _, _, p in tested])
    for (place, gain, p), p_holm in zip(tested, adjusted, strict=True):
        quantile = float(stdtrit(gain.n - 1, 1 - LEVEL / (2 * len(tested))))
        half = quantile * (gain.std or 0.0) / math.sqrt(gain.n)
        found[place] = Together(
            gains=len(tested), p=p, p_holm=p_holm, low=gain.mean - half, high=gain.mean + half
        )
    return found
