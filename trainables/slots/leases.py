"""A job that a slot holds: whom it reports to, when it is to be dropped, and what is told when it fails."""

from __future__ import annotations

import contextlib
import gc
import threading
import traceback
from collections.abc import Iterator
from typing import Any, Final

import ray
import torch

from trainables.errors import StillhouseError, StorageError, UnreadableData
from trainables.slots.job_channel import JobChannel
from trainables.slots.messages import End, Lease, Message
from trainables.training.ranks import SOLO, Team

WATCH_WAIT_S: Final = 30.0


@contextlib.contextmanager
def channel_of(
    lease: Lease, job_id: str, broker: Any, *, team: Team = SOLO, listens: bool = True
) -> Iterator[JobChannel]:
    """The channel of a lease while it is worked on, which hears when nobody wants the job any more.

    Rank 0 listens for all ranks.
    """
    with _cancellation(job_id, lease.attempt, broker, listens=listens) as cancelled:

        def send(message: Message) -> bool:
            wanted: bool = ray.get(broker.report.remote(job_id, lease.attempt, message))
            if not wanted:
                cancelled.set()
            return wanted

        yield JobChannel(send, cancelled.is_set, lease.heard, team)


def failure(error: Exception) -> Message:
    """What is told of a job that ended with an error."""
    hopeless = isinstance(error, StorageError | UnreadableData)  # other trials have the same data
    return Message(end=End.FAILED, reason=_reason(error), hopeless=hopeless)


def let_go(error: Exception) -> None:
    """Free what a failed job still holds: the frames of its error keep student, optimiser and batch."""
    traceback.clear_frames(error.__traceback__)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # so that a student of another shape finds room


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, StillhouseError) else f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def _cancellation(
    job_id: str, attempt: int, broker: Any, *, listens: bool = True
) -> Iterator[threading.Event]:
    """An event that is set as soon as the broker wants the job dropped; rank 0 listens for all ranks."""
    cancelled, over = threading.Event(), threading.Event()

    def listen() -> None:
        while not over.is_set() and not cancelled.is_set():
            if ray.get(broker.watch.remote(job_id, attempt, WATCH_WAIT_S)):
                cancelled.set()

    if listens:
        threading.Thread(target=listen, name=f"cancel-{job_id}", daemon=True).start()
    try:
        yield cancelled
    finally:
        over.set()  # the listener ends with its next answer: the job has ended, so that comes at once
