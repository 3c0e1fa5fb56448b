"""Jobs that the driver itself sends to the slots: finalists, the control, evaluations, measurements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ray

from trainables.errors import StillhouseError
from trainables.jobs import End, EvaluateJob, Message, ProfileJob, TrainJob

NEXT_WAIT_S = 60.0
Errand = TrainJob | EvaluateJob | ProfileJob


def run_errands(
    broker: Any, jobs: Sequence[Errand], on_message: Callable[[Errand, Message], None] = lambda *_: None
) -> dict[str, Message]:
    """Send all jobs, pass every message on, and give the last message of each by job id.

    Raises:
        StillhouseError: a job failed; the others are cancelled.
    """
    ray.get([broker.submit.remote(job.job_id, job.plain()) for job in jobs])
    seen = {job.job_id: 0 for job in jobs}
    waiting = {broker.next.remote(job.job_id, 0, NEXT_WAIT_S): job for job in jobs}
    ends: dict[str, Message] = {}
    while waiting:
        ready, _ = ray.wait(list(waiting), num_returns=1)
        job = waiting.pop(ready[0])
        answer = ray.get(ready[0])
        if answer is not None:
            seen[job.job_id] += 1
            message = Message.from_plain(answer)
            on_message(job, message)
            if message.end is End.FAILED:
                ray.get([broker.cancel.remote(other.job_id) for other in waiting.values()])
                raise StillhouseError(f"{job.job_id} failed: {message.reason}")
            if message.end is not None:
                ends[job.job_id] = message
                continue
        waiting[broker.next.remote(job.job_id, seen[job.job_id], NEXT_WAIT_S)] = job
    return ends
