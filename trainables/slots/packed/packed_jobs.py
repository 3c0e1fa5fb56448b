"""Students that a slot trains at once: a lease gets a lane; a free lane takes the next job that fits."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import ray

from trainables.errors import StillhouseError
from trainables.slots.job_channel import JobChannel
from trainables.slots.leases import channel_of, failure, let_go
from trainables.slots.messages import Lease, TrainJob
from trainables.slots.packed.packing import pack_key
from trainables.slots.student_jobs import StudentJob
from trainables.slots.warm_state import WarmState
from trainables.training.course import TrainingResult
from trainables.training.packs.measure import PackChoice
from trainables.training.packs.pack import DoesNotFit, Pack, Ticket

log = logging.getLogger(__name__)

DoLease = Callable[[Lease, WarmState, Any], None]
"""Does a job alone."""


class PackedJobs:
    """What a slot does with jobs of training that may share a pack.

    What cannot join a pack, and what is left when a step fails for all, is trained alone in the same slot.
    """

    def __init__(
        self, warm: WarmState, broker: Any, slot: str, students: int | str, do_alone: DoLease
    ) -> None:
        """`students` is `cluster.students_per_slot`: how many at once, or `auto`."""
        self._warm, self._broker, self._slot = warm, broker, slot
        self._students, self._do_alone = students, do_alone
        self._refused: set[str] = set()
        """Keys of packs in which a step failed for all: their trials are trained alone from then on."""

    def do(self, lease: Lease) -> bool:
        """Train the lease's student, and others that fit, in a pack; false where it is to be done alone."""
        if self._students == 1 or lease.alone or lease.job["kind"] != "train":
            return False
        job = TrainJob.from_plain(lease.job)
        key = pack_key(job)
        if key is None or key in self._refused:
            return False
        try:
            choice = self._warm.pack_choice(job.trial, job.workbench, self._students)
        except Exception:  # the same happens where it is trained alone, and is told there
            log.exception("%s is not tried in a pack", job.job_id)
            return False
        if choice.form is None:
            return False
        _OnePack(self, choice, key).train(lease)
        return True

    def more(self, beside: str, choice: PackChoice, room: int) -> list[Lease]:
        """Leases of jobs that fit, as many as there are and there is room for."""
        answer: list[dict[str, Any]] = ray.get(
            self._broker.take_more.remote(self._slot, os.getpid(), beside, choice.lanes, room)
        )
        return [Lease.from_plain(plain) for plain in answer]

    def alone(self, lease: Lease) -> None:
        """Do a job alone."""
        self._do_alone(lease, self._warm, self._broker)

    def refuse(self, key: str) -> None:
        """Train what would fit such a pack alone from now on."""
        self._refused.add(key)

    def channel(self, lease: Lease, job_id: str) -> AbstractContextManager[JobChannel]:
        """The channel of a lease; see `channel_of`."""
        return channel_of(lease, job_id, self._broker)

    @property
    def warm(self) -> WarmState:
        """What the slot keeps."""
        return self._warm


@dataclass
class _Held:
    """A lease whose student has a lane."""

    lease: Lease
    student: StudentJob
    channel: JobChannel
    open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


class _OnePack:
    """A pack from its first student to its last."""

    def __init__(self, jobs: PackedJobs, choice: PackChoice, key: str) -> None:
        self._jobs, self._choice, self._key = jobs, choice, key
        self._held: dict[str, _Held] = {}
        self._pack: Pack | None = None

    def train(self, first: Lease) -> None:
        """Until no lane has a student, and none that fits waits."""
        self._join(first)
        beside = TrainJob.from_plain(first.job).job_id
        while True:
            if room := self._choice.lanes - len(self._held):
                for lease in self._jobs.more(beside, self._choice, room):
                    self._join(lease)
            if self._pack is None or not self._pack.lanes:
                return
            try:
                self._pack.train_epoch()
            except Exception as error:  # a step that fails for all: each has to show alone whose fault it is
                log.exception("a step of %d students failed; each is trained alone", len(self._held))
                let_go(error)
                self._give_up()
                return

    def _join(self, lease: Lease) -> None:
        """Give a lease's student a lane, or train it alone at once where it cannot join."""
        job = TrainJob.from_plain(lease.job)
        stack = contextlib.ExitStack()
        channel = stack.enter_context(self._jobs.channel(lease, job.job_id))
        try:
            student = StudentJob(job, self._jobs.warm, channel, packed=True)
            held = self._held[job.job_id] = _Held(lease, student, channel, stack)
            ticket = Ticket(
                student.course,
                student.tell,
                channel.should_stop,
                student.files,
                student.heard,
                on_end=lambda end: self._ended(held, end),
            )
            if self._pack is None:
                self._pack = Pack(ticket, self._jobs.warm.workbench(job.workbench), self._form)
            self._pack.admit(ticket)
        except DoesNotFit as reason:
            log.info("%s is trained alone: %s", job.job_id, reason)
            self._held.pop(job.job_id)
            stack.close()
            self._jobs.alone(lease)
        except Exception as error:  # of this job: the others go on
            log.exception("%s failed", job.job_id)
            self._held.pop(job.job_id, None)
            channel.send(failure(error))
            let_go(error)
            stack.close()

    @property
    def _form(self) -> Any:
        return self._choice.form

    def _ended(self, held: _Held, end: TrainingResult | Exception) -> None:
        """Tell how a student ended; its lane is free."""
        self._held.pop(held.student.job.job_id, None)
        with held.open:
            error = end if isinstance(end, Exception) else _kept(held.student, end)
            if error is not None:
                log.warning("%s failed: %s", held.student.job.job_id, error)
                held.channel.send(failure(error))

    def _give_up(self) -> None:
        """Train all that have lanes alone, from their states."""
        self._jobs.refuse(self._key)
        self._pack = None
        leases = [held.lease for held in self._held.values()]
        for held in list(self._held.values()):
            held.open.close()
        self._held.clear()
        for lease in leases:
            self._jobs.alone(lease)


def _kept(student: StudentJob, end: TrainingResult) -> Exception | None:
    """Keep a student and tell its end; what went wrong, if anything."""
    try:
        student.end(end)
    except StillhouseError as error:
        return error
    return None
