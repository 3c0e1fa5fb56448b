"""What the broker remembers: one entry a job, one record a slot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trainables.slots.messages import Message, TrainJob
from trainables.slots.packed.packing import pack_key


@dataclass
class Entry:
    """One job and all that was said about it."""

    job: dict[str, Any]
    attempt: int = 0
    slot: str | None = None
    cancelled: bool = False
    lost: int = 0
    messages: list[Message] = field(default_factory=list)
    holders: set[str] = field(default_factory=set)
    """Who follows the job."""
    passed: dict[str, int] = field(default_factory=dict)
    """By holder, how many messages it was given and has passed on."""
    asking: int = 0
    """Followers that wait for news at this moment."""
    asked_at: float = field(default_factory=time.monotonic)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _key: str | None = None

    @property
    def pack_key(self) -> str:
        """What jobs have alike that may share a pack; empty for one that is done alone."""
        if self._key is None:
            self._key = _pack_key(self.job)
        return self._key

    @property
    def ended(self) -> bool:
        """Whether nothing more will be said."""
        return bool(self.messages) and self.messages[-1].end is not None

    @property
    def heard(self) -> int:
        """Epochs that were passed on."""
        return max((message.epoch for message in self.messages), default=0)

    def learn(self, told: Sequence[Message]) -> bool:
        """Take over what an earlier broker or run has heard, where that is more; whether it was."""
        if self.ended or not told:
            return False
        if len(told) <= len(self.messages) and told[-1].end is None:
            return False
        self.messages = list(told)
        return True

    def asked(self, holder: str, seen: int) -> None:
        """A holder wants message number `seen`: it has passed on all before."""
        self.passed[holder] = max(seen, self.passed.get(holder, 0))
        self.asked_at = time.monotonic()

    def is_orphan(self, orphan_s: float) -> bool:
        """Whether nobody has asked for news so long that nobody will."""
        return self.asking == 0 and time.monotonic() - self.asked_at > orphan_s

    def notify(self) -> None:
        """Wake all who wait for news of this job."""
        self.changed.set()
        self.changed = asyncio.Event()


def _pack_key(plain: dict[str, Any]) -> str:
    return pack_key(TrainJob.from_plain(plain)) or "" if plain.get("kind") == "train" else ""


@dataclass
class SlotFacts:
    """What the broker knows of a slot."""

    up_at: float
    pid: int
    jobs: int = 0
    lanes: int = 1
    """Students that it can train at once, as far as it has said."""


async def set_before(deadline: float, event: asyncio.Event) -> bool:
    """Wait until the event is set; false when that has not come by the deadline (monotonic seconds)."""
    left = deadline - time.monotonic()
    if left <= 0:
        return False
    try:
        await asyncio.wait_for(event.wait(), left)
    except TimeoutError:
        return False
    return True
