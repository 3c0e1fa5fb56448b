"""What the text `checkpoint` may name: a file, a library's published weights, or a model in MLflow."""

from __future__ import annotations

import re
from typing import Final

PUBLISHED: Final = "published"
_PINNED: Final = re.compile(r"(models:/+[^/@]+/\d+|models:/+m-[0-9a-f]+|runs:/+.+)")


def is_published(checkpoint: str | None) -> bool:
    """Whether it means the weights that the network's library publishes."""
    return checkpoint is not None and checkpoint.partition(":")[0] == PUBLISHED


def published_tag(checkpoint: str) -> str | None:
    """Which of the published weights, in the library's own words; none for those that it recommends."""
    return checkpoint.partition(":")[2] or None


def is_tracked(checkpoint: str | None) -> bool:
    """Whether it names a model, or a file of a run, in MLflow."""
    return checkpoint is not None and checkpoint.startswith(("models:/", "runs:/"))


def is_pinned(checkpoint: str) -> bool:
    """Whether what a name in MLflow means never changes, as that of an alias does."""
    return _PINNED.fullmatch(checkpoint) is not None


def is_elsewhere(checkpoint: str | None) -> bool:
    """Whether it names weights that are to be brought, and no file."""
    return is_published(checkpoint) or is_tracked(checkpoint)
