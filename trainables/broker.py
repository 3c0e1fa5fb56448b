"""The broker: jobs in, messages out, cancellations and leases; an asynchronous actor without tensors."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import ray

from trainables.jobs import End, Lease, Message

CLOSED = "closed"


@dataclass
class _Entry:
    """One job and all that was said about it."""

    job: dict[str, Any]
    attempt: int = 0
    slot: str | None = None
    holders: int = 1
    cancelled: bool = False
    messages: list[Message] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ended(self) -> bool:
        return bool(self.messages) and self.messages[-1].end is not None

    def notify(self) -> None:
        """Wake all who wait for news of this job."""
        self.changed.set()
        self.changed = asyncio.Event()


@dataclass
class _Slot:
    """What the broker knows of a slot."""

    up_at: float
    pid: int
    seen_at: float
    jobs: int = 0


class Broker:
    """Hands jobs to slots and messages to whoever asked for the job.

    A slot holds at most one job, under a lease. A slot that asks again while it holds one has been
    restarted: it gets the same job back, as a new attempt, and goes on from the job's checkpoint.
    Messages of an epoch that was already passed on are dropped, so that each arrives exactly once.
    """

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._queue: deque[str] = deque()
        self._slots: dict[str, _Slot] = {}
        self._work = asyncio.Event()
        self._closed = False
        self._failure: str | None = None

    async def submit(self, job_id: str, job: dict[str, Any]) -> None:
        """Queue a job; one that is known already is shared, one that was cancelled starts anew."""
        entry = self._entries.get(job_id)
        if entry is None or entry.cancelled:
            entry = _Entry({}, attempt=entry.attempt + 1 if entry else 0, holders=0)
            self._entries[job_id] = entry
        entry.holders += 1
        if entry.job or entry.ended:
            return
        entry.job = job
        self._queue.append(job_id)
        self._wake()

    async def replay(self, job_id: str, messages: list[dict[str, Any]]) -> None:
        """Make known what an earlier run heard of a job: whoever submits it reads these messages first.

        A job whose messages have an end is not done again; another goes on after them.
        """
        entry = _Entry({}, holders=0)
        entry.messages = [Message.from_plain(message) for message in messages]
        self._entries[job_id] = entry

    async def expect(self, job_id: str) -> int:
        """Make a job known that somebody does outside the slots; the attempt to report it with."""
        self._entries[job_id] = _Entry({}, attempt=1)
        return 1

    async def take(self, slot: str, pid: int, wait_s: float) -> dict[str, Any] | str | None:
        """A lease for this slot, `CLOSED` when there will be none, or nothing within `wait_s`."""
        now = time.time()
        known = self._slots.setdefault(slot, _Slot(up_at=now, pid=pid, seen_at=now))
        known.pid, known.seen_at = pid, now
        held = next((i for i, e in self._entries.items() if e.slot == slot and not e.ended), None)
        if held is not None:
            return self._lease(held, slot)
        while not self._queue and not self._closed:
            work = self._work
            try:
                await asyncio.wait_for(work.wait(), wait_s)
            except TimeoutError:
                return None
        if self._closed:
            return CLOSED
        return self._lease(self._queue.popleft(), slot)

    async def report(self, job_id: str, attempt: int, message: dict[str, Any]) -> bool:
        """Pass a message on; false tells the slot to drop the job (cancelled, or held by another)."""
        entry = self._entries.get(job_id)
        if entry is None or entry.attempt != attempt or entry.ended or entry.cancelled:
            return False
        parsed = Message.from_plain(message)
        known = max((m.epoch for m in entry.messages), default=0)
        if parsed.end is None and parsed.epoch <= known:
            return True
        entry.messages.append(parsed)
        if parsed.end is not None:
            self._release(entry)
        entry.notify()
        return True

    async def next(self, job_id: str, seen: int, wait_s: float) -> dict[str, Any] | None:
        """Message number `seen` (from 0) of a job, or nothing within `wait_s`."""
        entry = self._entries[job_id]
        deadline = time.monotonic() + wait_s
        while len(entry.messages) <= seen:
            if self._failure is not None:
                return Message(end=End.FAILED, reason=self._failure).plain()
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            try:
                await asyncio.wait_for(entry.changed.wait(), left)
            except TimeoutError:
                return None
        return entry.messages[seen].plain()

    async def last(self, job_id: str) -> dict[str, Any] | None:
        """The last message of a job, if there is one."""
        messages = self._entries[job_id].messages if job_id in self._entries else []
        return messages[-1].plain() if messages else None

    async def watch(self, job_id: str, attempt: int, wait_s: float) -> bool:
        """Whether the slot that holds this attempt must drop it; answers early when that changes."""
        deadline = time.monotonic() + wait_s
        while True:
            entry = self._entries.get(job_id)
            if entry is None or entry.cancelled or entry.attempt != attempt or entry.ended:
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            try:
                await asyncio.wait_for(entry.changed.wait(), left)
            except TimeoutError:
                return False

    async def cancel(self, job_id: str) -> None:
        """Drop a job, unless another proxy still follows it; a finished one stays as it is."""
        entry = self._entries.get(job_id)
        if entry is None or entry.ended or entry.cancelled:
            return
        entry.holders -= 1
        if entry.holders > 0:
            return
        entry.cancelled = True
        if job_id in self._queue:
            self._queue.remove(job_id)
        self._release(entry)
        entry.notify()

    async def slot_lost(self, slot: str) -> None:
        """Queue again, in front, what a slot that will not come back was holding."""
        self._slots.pop(slot, None)
        for job_id, entry in self._entries.items():
            if entry.slot == slot and not entry.ended:
                entry.slot, entry.attempt = None, entry.attempt + 1
                self._queue.appendleft(job_id)
                entry.notify()
        self._wake()

    async def fail(self, reason: str) -> None:
        """Tell everybody who waits that no job will ever be done."""
        self._failure = reason
        for entry in self._entries.values():
            entry.notify()

    async def close(self) -> None:
        """Send every slot home and drop what is running."""
        self._closed = True
        for entry in self._entries.values():
            if not entry.ended:
                entry.cancelled = True
            entry.notify()
        self._wake()

    async def slots(self) -> dict[str, dict[str, float]]:
        """Slots by name: when they came up (Unix seconds), process id, jobs taken."""
        return {n: {"up_at": s.up_at, "pid": s.pid, "jobs": s.jobs} for n, s in self._slots.items()}

    async def queued(self) -> int:
        """Jobs that wait for a slot."""
        return len(self._queue)

    def _lease(self, job_id: str, slot: str) -> dict[str, Any]:
        entry = self._entries[job_id]
        entry.attempt += 1
        entry.slot = slot
        self._slots[slot].jobs += 1
        return Lease(job=entry.job, attempt=entry.attempt).plain()

    def _release(self, entry: _Entry) -> None:
        entry.slot = None

    def _wake(self) -> None:
        self._work.set()
        self._work = asyncio.Event()


def start_broker(name: str) -> ray.actor.ActorHandle:
    """The broker as a named actor of the current session; it takes no CPU and lives as long as its handle."""
    actor = ray.remote(num_cpus=0, max_restarts=0, max_concurrency=1000)(Broker)
    return actor.options(name=name).remote()
