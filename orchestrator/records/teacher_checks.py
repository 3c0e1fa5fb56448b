"""Whether a finished teacher is the one that was meant: asked before anything learns from it."""

from __future__ import annotations

from orchestrator.terminal.formatting import percent
from trainables.errors import StillhouseError
from trainables.evaluation.chance import AgainstChance


def require_accuracy(expected: float | None, found: float | None) -> None:
    """Stop before anything is learned from a teacher that falls short of what the file asks of it.

    Raises:
        StillhouseError: it does.
    """
    if expected is not None and found is not None and found < expected:
        raise StillhouseError(
            f"the teacher gets {percent(found)} % of the selection split right, and "
            f"teacher.expected_accuracy asks for {percent(expected)} %; check the order of the classes, "
            "`normalisation` and image size of a loaded teacher, or lower what is expected"
        )


def require_better_than_chance(found: AgainstChance, *, expected: float | None) -> None:
    """Stop before anything is learned from a loaded teacher that knows nothing of the labels.

    An accuracy that the file expects, and that is reached, takes the place of the suspicion.

    Raises:
        StillhouseError: it is right no more often than by chance.
    """
    is_as_expected = expected is not None and found.right >= expected * found.images
    if found.is_suspicious and not is_as_expected:
        raise StillhouseError(f"{chance_in_words(found)}; {SUSPICION}")


def chance_in_words(found: AgainstChance) -> str:
    """How often a teacher was right, beside chance."""
    return (
        f"the teacher is right on {percent(found.right / found.images)} % of {found.images:,} images of the "
        f"selection split, no more often than by chance ({percent(found.by_chance)} %)"
    )


SUSPICION = (
    "its classes may be in another order (name them in the order of its outputs: `classes: [...]` below the "
    "teacher), its images normalised by other numbers (`normalisation`), or the checkpoint be another "
    "network's; where it is meant to be so weak, say so with `expected_accuracy`"
)
