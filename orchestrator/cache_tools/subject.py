"""What a cache command is about: a place, and the experiment whose cache it is where one was named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.cache.format.storage import Place

if TYPE_CHECKING:  # files can be looked at without torch and Ray
    from orchestrator.cache_tools.owner import Belonging


@dataclass(frozen=True)
class Subject:
    """A cache's place; without an experiment nothing can be computed, only read."""

    place: Place
    belonging: Belonging | None = None
