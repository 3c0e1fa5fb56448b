"""Stages as jobs of a slot: what one makes travels in its last message, and so does what it raises."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import torch

from trainables import errors
from trainables.errors import ConfigError, StillhouseError, TrialFailed
from trainables.slots.job_channel import JobChannel
from trainables.slots.messages import End, Message, Raised, StageJob
from trainables.slots.stages.stages import STAGES
from trainables.slots.warm_state import WarmState

_ERRORS: Final[Mapping[str, type[StillhouseError]]] = MappingProxyType(
    {
        name: found
        for name, found in vars(errors).items()
        if isinstance(found, type) and issubclass(found, StillhouseError)
    }
)

log = logging.getLogger(__name__)


def do_stage(job: StageJob, warm: WarmState, channel: JobChannel) -> None:
    """Do a stage, and tell what it made or why it failed."""
    send, threads = channel.send, torch.get_num_threads()

    def tell(epoch: int, metrics: dict[str, float]) -> None:
        if not send(Message(epoch=epoch, metrics=metrics)):
            raise TrialFailed("nobody wants it any more")

    try:
        made = STAGES[job.stage](job.request, tell, warm.of_stages)
    except Exception as error:  # whatever a user's network raises is raised again in the driver
        log.exception("%s failed", job.job_id)
        send(Message(end=End.FAILED, reason=str(error), raised=_raised(error)))
    else:
        send(Message(end=End.COMPLETED, made=made))
    finally:
        torch.set_num_threads(threads)  # a stage sets its own


def _raised(error: Exception) -> Raised:
    # A kind of error that a module has for itself is raised as the one that it is a kind of.
    ours = next((kind.__name__ for kind in type(error).__mro__ if kind in _ERRORS.values()), None)
    if ours is not None:
        texts = error.problems if isinstance(error, ConfigError) else tuple(map(str, error.args))
        return Raised(kind=ours, texts=texts, trace="")
    trace = "".join(traceback.format_exception(error))
    return Raised(kind=type(error).__name__, texts=(str(error),), trace=trace)


def made_of(message: Message) -> dict[str, Any]:
    """What a stage made, of its last message.

    Raises:
        StillhouseError: it failed for a reason of ours, or no slot can do anything any more.
        RuntimeError: it failed for another; the text has the slot's traceback.
    """
    if message.made is not None:
        return message.made
    raised = message.raised
    if raised is None:
        raise StillhouseError(message.reason or "a slot ended a stage without a reason")
    if raised.kind in _ERRORS:
        raise _ERRORS[raised.kind](*raised.texts)
    raise RuntimeError(f"{raised.kind}: {' '.join(raised.texts)}\n{raised.trace}")
