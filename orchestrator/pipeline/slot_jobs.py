"""Jobs that the driver itself sends to the slots: finalists, the control, evaluations, measurements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ray

from trainables.errors import StillhouseError
from trainables.slots.follower import Follower
from trainables.slots.messages import End, Job, Message

HOLDER = "driver"


def run_jobs(
    broker: Any,
    jobs: Sequence[Job],
    on_message: Callable[[Job, Message], None] = lambda *_: None,
    *,
    each_may_fail: bool = False,
) -> dict[str, Message]:
    """Send all jobs, pass every message on, and give the last message of each by job id.

    Raises:
        StillhouseError: a job failed, and `each_may_fail` is not given, or no job can be done any more; the
            others are cancelled.
    """
    followers = [(Follower(broker, job.job_id, job.plain(), holder=HOLDER), job) for job in jobs]
    ray.get([follower.submitting() for follower, _ in followers])
    waiting = {follower.ask(): (follower, job) for follower, job in followers}
    ends: dict[str, Message] = {}
    while waiting:
        ready, _ = ray.wait(list(waiting), num_returns=1)
        follower, job = waiting.pop(ready[0])
        message = follower.hear(ray.get(ready[0]))
        if message is not None:
            on_message(job, message)
            if message.end is End.FAILED and (message.hopeless or not each_may_fail):
                for other, _ in waiting.values():
                    other.cancel()
                raise StillhouseError(f"{job.job_id} failed: {message.reason}")
            if message.end is not None:
                ends[job.job_id] = message
                continue
        waiting[follower.ask()] = (follower, job)
    return ends
