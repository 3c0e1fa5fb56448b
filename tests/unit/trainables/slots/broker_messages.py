"""How tests speak to a broker: coroutines as tests, short messages and leases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec

from trainables.slots.broker import Broker
from trainables.slots.messages import End, Message

P = ParamSpec("P")

SOON_S = 5.0
"""Long enough for any answer that comes at all."""
NEVER_S = 0.01
"""Wait so long where no answer is expected."""

COMPLETED = Message(epoch=3, metrics={"selection/accuracy": 0.9}, end=End.COMPLETED, checkpoint="best")


def in_a_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a coroutine as a test; one that hangs fails."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 20.0))

    return run


def epoch(number: int, end: End | None = None) -> Message:
    return Message(epoch=number, metrics={"selection/accuracy": number / 10}, end=end)


async def lease_of(broker: Broker, slot: str = "slot-0", pid: int = 1) -> tuple[str, int, int]:
    """What a slot takes: name of the job, attempt, epochs heard."""
    lease = await broker.take(slot, pid, SOON_S)
    assert isinstance(lease, dict)
    return lease["job"]["name"], lease["attempt"], lease["heard"]


async def submit(broker: Broker, *names: str, holder: str = "") -> None:
    for name in names:
        await broker.submit(name, {"name": name}, holder=holder)


def queued(broker: Broker) -> int:
    """Jobs that wait for a slot."""
    return len(broker._queue)


async def heard_of(broker: Broker, name: str) -> list[int]:
    """Epochs of all the messages that there are."""
    epochs: list[int] = []
    while True:
        message = await broker.next(name, len(epochs), NEVER_S)
        if not isinstance(message, Message):
            return epochs
        epochs.append(message.epoch)
        if message.end is not None:
            return epochs
