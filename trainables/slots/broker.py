"""The broker: jobs in, messages out, cancellations and leases; an asynchronous actor without tensors."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, Final

from trainables.slots.broker_entries import Entry, SlotFacts, set_before
from trainables.slots.messages import End, Lease, Message

CLOSED: Final = "closed"
FORGOTTEN: Final = "forgotten"
"""The answer to a follower of whom the broker knows nothing: it submits again, with all that it heard."""
OUTSIDE: Final = 0
"""The attempt of what is done outside the slots."""
MAX_LOST: Final = 3
ORPHAN_S: Final = 30.0


class Broker:
    """Hands jobs to slots and messages to whoever asked for the job.

    A slot holds a job under a lease, or those of a pack (`take_more`). A slot that asks again while it holds
    some has been restarted: they are queued in front, and go on from their checkpoints as new attempts. A job
    in which a worker dies `MAX_LOST` times without finishing an epoch is ended as failed: it would take
    one slot after another down. Messages of an epoch that was already passed on are dropped, so that each
    arrives exactly once.

    A broker that died comes back empty, as another incarnation (follower.py). Followers then submit
    again with what they heard; slots find their leases unknown and drop them; attempts are counted from the
    time of birth, so that no report of the former incarnation is taken for one of this. It gives out
    nothing in its first `quiet_s` seconds, so that a slot has noticed before another gets its job.
    A job for whose news nobody has asked for `orphan_s` seconds is dropped; asked for again, it goes on.
    """

    def __init__(self, *, quiet_s: float = 0.0, orphan_s: float = ORPHAN_S) -> None:
        self._born = self._attempt = time.time_ns() // 1000
        self._quiet_until = time.monotonic() + quiet_s
        self._orphan_s = orphan_s
        self._entries: dict[str, Entry] = {}
        self._queue: deque[str] = deque()
        self._slots: dict[str, SlotFacts] = {}
        self._work = asyncio.Event()
        self._closed = False
        self._failure: Message | None = None
        self._agreements: dict[str, str] = {}

    async def submit(
        self, job_id: str, job: dict[str, Any], heard: Sequence[Message] = (), holder: str = ""
    ) -> int:
        """Queue a job; one that is known already is shared, one that was cancelled goes on where it was.

        `heard` is what the follower knows of it, from a broker that is gone. Gives the number of messages
        that this holder has passed on already: one that died and came back need not tell them again.
        """
        entry = self._entries.setdefault(job_id, Entry({}))
        if entry.cancelled:
            entry.cancelled, entry.job, entry.attempt = False, {}, self._next_attempt()
        self._learn(job_id, heard)
        entry.holders.add(holder)
        entry.asked(holder, 0)
        if not entry.job and not entry.ended:
            entry.job = job
            self._queue.append(job_id)
            self._wake()
        return entry.passed[holder]

    async def replay(self, job_id: str, messages: Sequence[Message]) -> None:
        """Make known what an earlier run heard of a job: whoever submits it reads these messages first.

        A job whose messages have an end is not done again; another goes on after them.
        """
        self._entries.setdefault(job_id, Entry({}))
        self._learn(job_id, messages)

    async def expect(self, job_id: str, heard: Sequence[Message] = (), holder: str = "") -> int:
        """Make a job known that somebody does outside the slots; the attempt to report it with."""
        entry = self._entries.setdefault(job_id, Entry({}))
        self._learn(job_id, heard)
        entry.holders.add(holder)
        return OUTSIDE

    async def take(self, slot: str, pid: int, wait_s: float) -> dict[str, Any] | str | None:
        """A lease for this slot, `CLOSED` when there will be none, or nothing within `wait_s`."""
        deadline = time.monotonic() + wait_s
        known = self._slots.setdefault(slot, SlotFacts(up_at=time.time(), pid=pid))
        known.pid = pid
        self._take_back(slot)
        while not self._closed:
            quiet = time.monotonic() < self._quiet_until
            if self._queue and not quiet:
                return self._lease(self._queue.popleft(), slot)
            until = min(deadline, self._quiet_until) if quiet else deadline
            if not await set_before(until, self._work) and until == deadline:
                return None
            if self._slots.get(slot) is not known or known.pid != pid:
                return None  # the caller died while it waited; a job given to it would be nobody's
        return CLOSED

    async def take_more(
        self, slot: str, pid: int, beside: str, lanes: int, room: int
    ) -> list[dict[str, Any]]:
        """Leases of at most `room` jobs that fit a pack, beside a job that the slot took; none is waited for.

        A slot takes no more than its share of those that wait, so that the others have work too. A job in
        which a worker died is not given to a pack. `lanes` is what the pack can hold in all.
        """
        known, entry = self._slots.get(slot), self._entries.get(beside)
        if known is None or known.pid != pid or entry is None or self._closed:
            return []
        known.lanes = lanes
        if time.monotonic() < self._quiet_until:
            return []
        key = entry.pack_key
        fitting = [job_id for job_id in self._queue if self._fits(job_id, key)]
        leases = []
        for job_id in fitting[: min(room, -(-len(fitting) // len(self._slots)))]:
            self._queue.remove(job_id)
            leases.append(self._lease(job_id, slot))
        return leases

    async def report(self, job_id: str, attempt: int, message: Message) -> bool:
        """Pass a message on; false tells the slot to drop the job (cancelled, or held by another)."""
        entry = self._entries.get(job_id)
        if entry is None or entry.attempt != attempt or entry.ended or entry.cancelled:
            return False
        if message.hopeless:
            await self.fail(message.reason or "a slot can do no job")
            return False
        if message.end is None and message.epoch <= entry.heard:
            return True
        entry.messages.append(message)
        entry.lost = 0
        if message.end is not None:
            entry.slot = None
        entry.notify()
        return True

    async def next(self, job_id: str, seen: int, wait_s: float, holder: str = "") -> Message | str | None:
        """Message number `seen` (from 0) of a job, or nothing within `wait_s`; after the end, the end again.

        `FORGOTTEN` when this holder does not follow the job, as far as this broker knows.
        """
        deadline = time.monotonic() + wait_s
        while True:
            entry = self._entries.get(job_id)
            if entry is None or holder not in entry.holders:
                return FORGOTTEN
            entry.asked(holder, seen)
            if len(entry.messages) > seen or entry.ended:
                return entry.messages[min(seen, len(entry.messages) - 1)]
            if self._failure is not None:
                return self._failure
            entry.asking += 1
            try:
                changed = await set_before(deadline, entry.changed)
            finally:
                entry.asking -= 1
                entry.asked(holder, seen)
            if not changed:
                return None

    async def last(self, job_id: str) -> Message | None:
        """The last message of a job, if there is one."""
        entry = self._entries.get(job_id)
        return entry.messages[-1] if entry is not None and entry.messages else None

    async def watch(self, job_id: str, attempt: int, wait_s: float) -> bool:
        """Whether the slot that holds this attempt must drop it; answers early when that changes."""
        deadline = time.monotonic() + wait_s
        while True:
            entry = self._entries.get(job_id)
            if entry is None or entry.cancelled or entry.attempt != attempt or entry.ended:
                return True
            if entry.is_orphan(self._orphan_s):
                self._drop(job_id)
                return True
            until = min(deadline, time.monotonic() + self._orphan_s)
            if not await set_before(until, entry.changed) and until == deadline:
                return False

    async def cancel(self, job_id: str, holder: str = "") -> None:
        """Drop a job, unless another still follows it; a finished one stays as it is."""
        entry = self._entries.get(job_id)
        if entry is None or entry.ended or holder not in entry.holders:
            return
        entry.holders.remove(holder)
        if not entry.holders:
            self._drop(job_id)

    async def slot_lost(self, slot: str) -> None:
        """Queue again, in front, what a slot that will not come back was holding."""
        self._slots.pop(slot, None)
        self._take_back(slot)
        self._wake()

    async def fail(self, reason: str) -> None:
        """Tell everybody who waits that no job will ever be done."""
        self._failure = Message(end=End.FAILED, reason=reason, hopeless=True)
        for entry in self._entries.values():
            entry.notify()

    async def failure(self) -> str | None:
        """Why no job will ever be done, if so."""
        return self._failure.reason if self._failure is not None else None

    async def close(self) -> None:
        """Release every slot and cancel what is running."""
        self._closed = True
        for entry in self._entries.values():
            if not entry.ended:
                entry.cancelled, entry.slot = True, None
            entry.notify()
        self._queue.clear()
        self._wake()

    async def born(self, known: int, wait_s: float) -> int:
        """Which incarnation this is; answers after `wait_s` when it is the one that is known."""
        if known == self._born:
            await asyncio.sleep(wait_s)
        return self._born

    async def slots(self) -> dict[str, dict[str, float]]:
        """Slots by name: when they came up (Unix seconds), process id, jobs taken and held, lanes."""
        held = Counter(entry.slot for entry in self._entries.values())
        return {
            n: {"up_at": s.up_at, "pid": s.pid, "jobs": s.jobs, "busy": float(held[n]), "lanes": s.lanes}
            for n, s in self._slots.items()
        }

    async def agree(self, key: str, value: str) -> str:
        """The value that was said first for this key: what one slot measured counts for all."""
        return self._agreements.setdefault(key, value)

    async def agreements(self) -> dict[str, str]:
        """All that was agreed on, so that a later run can begin with it."""
        return dict(self._agreements)

    def _lease(self, job_id: str, slot: str) -> dict[str, Any]:
        entry = self._entries[job_id]
        entry.attempt = self._next_attempt()
        entry.slot = slot
        self._slots[slot].jobs += 1
        return Lease(job=entry.job, attempt=entry.attempt, heard=entry.heard, alone=entry.lost > 0).plain()

    def _fits(self, job_id: str, key: str) -> bool:
        entry = self._entries[job_id]
        return bool(key) and entry.lost == 0 and entry.pack_key == key

    def _take_back(self, slot: str) -> None:
        """Queue again, in front, what a slot held when its worker died, unless the job kills its workers."""
        for job_id, entry in self._entries.items():
            if entry.slot != slot:
                continue
            entry.slot, entry.attempt, entry.lost = None, self._next_attempt(), entry.lost + 1
            if entry.lost < MAX_LOST:
                self._queue.appendleft(job_id)
            else:
                reason = (
                    f"its worker died {entry.lost} times without finishing an epoch, last in {slot}; "
                    "it may need more memory than there is, or crash: Ray's logs of the worker say more"
                )
                entry.messages.append(Message(end=End.FAILED, reason=reason))
            entry.notify()

    def _learn(self, job_id: str, told: Sequence[Message]) -> None:
        entry = self._entries[job_id]
        if entry.learn(told) and entry.ended:
            entry.slot = None
            self._unqueue(job_id)
        entry.notify()

    def _drop(self, job_id: str) -> None:
        entry = self._entries[job_id]
        entry.cancelled, entry.slot = True, None
        entry.holders.clear()
        self._unqueue(job_id)
        entry.notify()

    def _unqueue(self, job_id: str) -> None:
        if job_id in self._queue:
            self._queue.remove(job_id)

    def _next_attempt(self) -> int:
        self._attempt += 1
        return self._attempt

    def _wake(self) -> None:
        self._work.set()
        self._work = asyncio.Event()
