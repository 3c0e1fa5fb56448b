"""Errors that a user, a file or a cluster can cause; the command line prints them without a traceback."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


class StillhouseError(Exception):
    """Base of every error that Stillhouse raises on purpose; its text says what to do next."""

    exit_code = 1
    facts: Mapping[str, Any] = MappingProxyType({})
    """What programs read beside the text."""


class ConfigError(StillhouseError):
    """A file or an option that cannot be used as written; every problem has a line of its own."""

    exit_code = 2

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, ...]]:
        """Workers send errors as pickles, which by default give all problems as one."""
        return type(self), self.problems


class DataError(StillhouseError):
    """A data set that is missing, unreadable or not what the experiment says."""

    exit_code = 2


class UnreadableData(DataError):
    """Samples that cannot be read: no trial's fault, so no trial ends by it, and the run stops."""


class CheckpointError(StillhouseError):
    """A checkpoint that cannot be read or does not fit the model."""

    exit_code = 2


class StorageError(CheckpointError):
    """Storage that takes no more: no trial's fault, so no trial ends by it, and the run stops."""

    exit_code = 1


class CacheError(StillhouseError):
    """A teacher cache that is missing, damaged, or made for another experiment."""


class TrialFailed(StillhouseError):
    """A trial that cannot go on (non-finite loss, exception in its objective)."""


class Interrupted(StillhouseError):
    """The user stopped the run; its state is saved."""

    exit_code = 130
