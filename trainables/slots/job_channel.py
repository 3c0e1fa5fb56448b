"""What connects a job that a slot does with whoever wants it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trainables.slots.messages import Message
from trainables.training.ranks import SOLO, Team


@dataclass(frozen=True)
class JobChannel:
    """What connects a job that is being done with whoever wants it."""

    send: Callable[[Message], bool]
    """Passes a message on; false when nobody wants the job any more."""
    should_stop: Callable[[], bool]
    heard: int = 0
    """Epochs that an earlier attempt has told."""
    team: Team = SOLO
    """The workers of the slot."""
