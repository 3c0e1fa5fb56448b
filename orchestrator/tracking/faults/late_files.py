"""Files that the artifact store does not take while MLflow itself answers: they are tried again."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Final

from orchestrator.tracking.faults.errors import StoreAway
from orchestrator.tracking.faults.waits import doubled_wait_s

_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 60.0
_PATIENT_TRIES: Final = 5


class LateFiles:
    """Writes of files that wait, by what they are, so that the same one waits once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` tells seconds that never go back."""
        self._writes: dict[Hashable, Callable[[], None]] = {}
        self._clock = clock
        self._tries = 0
        self._due_s = 0.0
        self.error: str | None = None
        """What the store said last."""

    def __len__(self) -> int:
        """How many wait."""
        return len(self._writes)

    @property
    def may_come_soon(self) -> bool:
        """Whether some wait, and few enough attempts failed that waiting for them is worth it."""
        return bool(self._writes) and self._tries < _PATIENT_TRIES

    def add(self, key: Hashable, write: Callable[[], None], error: StoreAway) -> None:
        """Keep a write that failed for later."""
        if not self._writes:
            self._postpone(error)
        self._writes[key] = write

    def write(self, attempt: Callable[[Callable[[], None]], None], *, at_once: bool = False) -> None:
        """Write those that wait, up to the first that fails again; nothing where it is too early for it.

        `attempt` does a write, and raises StoreAway where the store does not take it now.
        """
        if not at_once and self._clock() < self._due_s:
            return
        for key in list(self._writes):
            try:
                attempt(self._writes[key])
            except StoreAway as error:
                # To the end: one that the store never takes, as too large a one, keeps no other waiting.
                self._writes[key] = self._writes.pop(key)
                self._postpone(error)
                return
            del self._writes[key]
        self._tries, self.error = 0, None

    def _postpone(self, error: StoreAway) -> None:
        self.error = str(error)
        wait_s = doubled_wait_s(self._tries, first_s=_FIRST_WAIT_S, longest_s=_LONGEST_WAIT_S)
        self._due_s = self._clock() + wait_s
        self._tries += 1
