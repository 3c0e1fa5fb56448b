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
MAX_LOST = 3


@dataclass
class _Entry:
    """One job and all that was said about it."""

    job: dict[str, Any]
    attempt: int = 0
    slot: str | None = None
    holders: int = 1
    cancelled: bool = False
    lost: int = 0
    messages: list[Message] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ended(self) -> bool:
        return bool(self.messages) and self.messages[-1].end is not None

    @property
    def heard(self) -> int:
        """Epochs that were passed on."""
        return max((message.epoch for message in self.messages), default=0)

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
    restarted: it gets the same job back, as a new attempt, and goes on from the job's checkpoint. A job
    in which a worker dies `MAX_LOST` times without finishing an epoch is ended as failed: it would take
    one slot after another down. Messages of an epoch that was already passed on are dropped, so that each
    arrives exactly once.
    """

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._queue: deque[str] = deque()
        self._slots: dict[str, _Slot] = {}
        self._work = asyncio.Event()
        self._closed = False
        self._failure: Message | None = None

    async def submit(self, job_id: str, job: dict[str, Any]) -> None:
        """Queue a job; one that is known already is shared, one that was cancelled goes on where it was.

        What was heard of a cancelled job is told again, since its checkpoint may be beyond those epochs.
        """
        entry = self._entries.get(job_id)
        if entry is None:
            entry = self._entries[job_id] = _Entry({}, holders=0)
        elif entry.cancelled:
            heard = list(entry.messages)
            entry = self._entries[job_id] = _Entry({}, attempt=entry.attempt + 1, holders=0, messages=heard)
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
        now, deadline = time.time(), time.monotonic() + wait_s
        known = self._slots.setdefault(slot, _Slot(up_at=now, pid=pid, seen_at=now))
        known.pid, known.seen_at = pid, now
        self._take_back(slot)
        while not self._closed:
            if self._queue:
                return self._lease(self._queue.popleft(), slot)
            if not await _set_before(deadline, self._work):
                return None
            if self._slots.get(slot) is not known or known.pid != pid:
                return None  # the caller died while it waited; a job given to it would be nobody's
        return CLOSED

    async def report(self, job_id: str, attempt: int, message: dict[str, Any]) -> bool:
        """Pass a message on; false tells the slot to drop the job (cancelled, or held by another)."""
        entry = self._entries.get(job_id)
        if entry is None or entry.attempt != attempt or entry.ended or entry.cancelled:
            return False
        parsed = Message.from_plain(message)
        if parsed.end is None and parsed.epoch <= entry.heard:
            return True
        entry.messages.append(parsed)
        entry.lost = 0
        if parsed.end is not None:
            entry.slot = None
        entry.notify()
        return True

    async def next(self, job_id: str, seen: int, wait_s: float) -> dict[str, Any] | None:
        """Message number `seen` (from 0) of a job, or nothing within `wait_s`."""
        deadline = time.monotonic() + wait_s
        while True:
            entry = self._entries[job_id]
            if len(entry.messages) > seen:
                return entry.messages[seen].plain()
            if self._failure is not None:
                return self._failure.plain()
            if not await _set_before(deadline, entry.changed):
                return None

    async def last(self, job_id: str) -> dict[str, Any] | None:
        """The last message of a job, if there is one."""
        entry = self._entries.get(job_id)
        if entry is None:
            return None
        if self._failure is not None and not entry.ended:
            return self._failure.plain()
        return entry.messages[-1].plain() if entry.messages else None

    async def watch(self, job_id: str, attempt: int, wait_s: float) -> bool:
        """Whether the slot that holds this attempt must drop it; answers early when that changes."""
        deadline = time.monotonic() + wait_s
        while True:
            entry = self._entries.get(job_id)
            if entry is None or entry.cancelled or entry.attempt != attempt or entry.ended:
                return True
            if not await _set_before(deadline, entry.changed):
                return False

    async def cancel(self, job_id: str) -> None:
        """Drop a job, unless another proxy still follows it; a finished one stays as it is."""
        entry = self._entries.get(job_id)
        if entry is None or entry.ended or entry.cancelled:
            return
        entry.holders -= 1
        if entry.holders > 0:
            return
        entry.cancelled, entry.slot = True, None
        if job_id in self._queue:
            self._queue.remove(job_id)
        entry.notify()

    async def slot_lost(self, slot: str) -> None:
        """Queue again, in front, what a slot that will not come back was holding."""
        self._slots.pop(slot, None)
        self._take_back(slot)
        self._wake()

    async def fail(self, reason: str) -> None:
        """Tell everybody who waits that no job will ever be done."""
        self._failure = Message(end=End.FAILED, reason=reason)
        for entry in self._entries.values():
            entry.notify()

    async def close(self) -> None:
        """Send every slot home and drop what is running."""
        self._closed = True
        for entry in self._entries.values():
            if not entry.ended:
                entry.cancelled, entry.slot = True, None
            entry.notify()
        self._queue.clear()
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
        return Lease(job=entry.job, attempt=entry.attempt, heard=entry.heard).plain()

    def _take_back(self, slot: str) -> None:
        """Queue again, in front, what a slot held when its worker died, unless the job kills its workers."""
        for job_id, entry in self._entries.items():
            if entry.slot != slot:
                continue
            entry.slot, entry.attempt, entry.lost = None, entry.attempt + 1, entry.lost + 1
            if entry.lost < MAX_LOST:
                self._queue.appendleft(job_id)
            else:
                reason = (
                    f"its worker died {entry.lost} times without finishing an epoch, last in {slot}; "
                    "it may need more memory than there is, or crash: Ray's logs of the worker say more"
                )
                entry.messages.append(Message(end=End.FAILED, reason=reason))
            entry.notify()

    def _wake(self) -> None:
        self._work.set()
        self._work = asyncio.Event()


async def _set_before(deadline: float, event: asyncio.Event) -> bool:
    """Wait until the event is set; false when that has not come by the deadline (monotonic seconds)."""
    left = deadline - time.monotonic()
    if left <= 0:
        return False
    try:
        await asyncio.wait_for(event.wait(), left)
    except TimeoutError:
        return False
    return True


def start_broker(name: str) -> Any:
    """The broker as a named actor of the current session; it takes no CPU and lives as long as its handle."""
    actor: Any = ray.remote(num_cpus=0, max_restarts=0, max_concurrency=1000)(Broker)  # type: ignore[call-overload]
    return actor.options(name=name).remote()
