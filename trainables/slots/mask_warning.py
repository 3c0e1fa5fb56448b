"""The warning about a mask of an objective that keeps almost no sample, so that its term hardly teaches."""

from __future__ import annotations

from typing import Final

from trainables.config import TrialSpec
from trainables.slots.messages import Message

FEW: Final = 0.01
"""The fraction of samples below which an epoch is worth a warning."""


def mask_warning(spec: TrialSpec, message: Message) -> str | None:
    """The warning about an epoch in which a mask kept less than 1 % of the samples; None where all kept more.

    The slot's log and the console show this one text. Masks are known by their gauge, the mean fraction of
    samples kept: `train/kept...`.
    """
    few = [f"{name} {fraction:.2%}" for name, fraction in message.kept_fractions.items() if fraction < FEW]
    if not few:
        return None
    return (
        f"{spec.trial_id}: {spec.objective.name} kept under 1 % of the samples in epoch {message.epoch} "
        f"({', '.join(few)}): what that gates hardly teaches; lower its threshold, or look at the teacher's "
        "confidence"
    )
