"""What a cache command is about: a place, and the experiment whose cache it is where one was named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from trainables.cache.format.storage import Place

if TYPE_CHECKING:  # files can be looked at without torch and Ray
    from trainables.teacher.alignment_proof import ProofSummary
    from trainables.teacher.cache_request import CacheRequest


class CacheOwner(Protocol):
    """The experiment that a cache belongs to: it can compute what is missing, and ask the teacher again."""

    @property
    def request(self) -> CacheRequest:
        """Which cache it is."""
        ...

    def complete(self) -> None:
        """Compute what the cache lacks.

        Raises:
            CacheError: there is no room, or no network that could answer.
        """
        ...

    def prove(self) -> ProofSummary:
        """Have the teacher answer a random sample again.

        Raises:
            CacheError: rows are not what the teacher says.
        """
        ...


@dataclass(frozen=True)
class CacheTarget:
    """A cache's place; without an experiment nothing can be computed, only read."""

    place: Place
    owner: CacheOwner | None = None
