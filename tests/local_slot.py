"""A slot in the process of a test or benchmark: its jobs wait in a list, and no Ray is there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from trainables.config.metrics import LANES
from trainables.slots.job_channel import JobChannel
from trainables.slots.messages import Lease, Message, TrainJob
from trainables.slots.packed.packed_jobs import PackedJobs
from trainables.slots.student_jobs import train_job
from trainables.slots.warm_state import WarmState
from trainables.training.packs.measure import PackChoice


@dataclass
class Told:
    """What came of a job."""

    messages: list[Message] = field(default_factory=list)

    @property
    def end(self) -> Message:
        assert self.messages[-1].end is not None
        return self.messages[-1]

    @property
    def lanes(self) -> list[float | None]:
        return [message.metrics.get(LANES) for message in self.messages if message.metrics]


class LocalSlot(PackedJobs):
    """A slot whose jobs wait in a list."""

    def __init__(self, students: int | str = 8, warm: WarmState | None = None) -> None:
        super().__init__(warm or WarmState(torch.device("cpu")), None, "slot-0", students, self._train_alone)
        self.waiting: list[Lease] = []
        self.told: dict[str, Told] = {}
        self.alone_jobs: list[str] = []
        self.on_message: Callable[[str, Message], bool] = lambda *_: True
        self.unwanted: set[str] = set()

    def run(self, *jobs: TrainJob, attempt: int = 1) -> None:
        """All that wait, as the loop of a slot does them."""
        self.waiting += [
            Lease(job=job.plain(), attempt=attempt, heard=self._heard(job.job_id)) for job in jobs
        ]
        while self.waiting:
            lease = self.waiting.pop(0)
            if not self.do(lease):
                self.alone(lease)

    def more(self, beside: str, choice: PackChoice, room: int) -> list[Lease]:
        taken, self.waiting = self.waiting[:room], self.waiting[room:]
        return taken

    @contextlib.contextmanager
    def channel(self, lease: Lease, job_id: str) -> Iterator[JobChannel]:
        yield self._channel(lease, job_id)

    def _heard(self, job_id: str) -> int:
        return max((m.epoch for m in self.told.get(job_id, Told()).messages), default=0)

    def _channel(self, lease: Lease, job_id: str) -> JobChannel:
        def send(message: Message) -> bool:
            wanted = self.on_message(job_id, message)
            self.told.setdefault(job_id, Told()).messages.append(message)
            return wanted

        return JobChannel(send, lambda: job_id in self.unwanted, lease.heard)

    def _train_alone(self, lease: Lease, warm: WarmState, _: Any) -> None:
        job = TrainJob.from_plain(lease.job)
        self.alone_jobs.append(job.job_id)
        train_job(job, warm, self._channel(lease, job.job_id))
