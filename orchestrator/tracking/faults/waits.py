"""How long to wait before the next attempt."""

from __future__ import annotations

from typing import Final

_DOUBLINGS: Final = 30
"""Beyond these every wait is the longest; a power of two of hours of attempts is no float any more."""


def doubled_wait_s(attempts: int, *, first_s: float, longest_s: float) -> float:
    """Seconds after so many attempts before this one: the first wait, doubled each time up to the longest."""
    return min(first_s * 2.0 ** min(attempts, _DOUBLINGS), longest_s)
