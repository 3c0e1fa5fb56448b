"""A word where a mask of an objective keeps next to nothing, since what it gates then hardly teaches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

FEW: Final = 0.01
"""The fraction of samples below which an epoch is worth a warning."""
_PREFIX: Final = "train/kept"


def few_kept(objective: str, epoch: int, metrics: Mapping[str, float]) -> str | None:
    """What to say of an epoch in which a mask kept less than 1 %; none where all kept more.

    Masks are known by their gauge, the mean fraction kept: `train/kept...`.
    """
    few = [
        f"{name.removeprefix('train/')} {value:.2%}"
        for name, value in metrics.items()
        if name.startswith(_PREFIX) and value < FEW
    ]
    if not few:
        return None
    return (
        f"{objective} kept next to nothing in epoch {epoch} ({', '.join(few)}): what that gates hardly "
        "teaches; lower its threshold, or look at the teacher's confidence"
    )
