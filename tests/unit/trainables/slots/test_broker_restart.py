"""What a broker that came back empty is told, and what it refuses; and what happens to jobs nobody wants."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.unit.trainables.slots.broker_messages import (
    COMPLETED,
    NEVER_S,
    SOON_S,
    epoch,
    heard_of,
    in_a_loop,
    lease_of,
    queued,
    submit,
)
from trainables.slots.broker import FORGOTTEN, Broker
from trainables.slots.messages import End, Message


@in_a_loop
async def test_a_follower_that_is_unknown_is_told_so_and_brings_what_it_heard() -> None:
    broker = Broker()
    assert await broker.next("a", 2, SOON_S, "proxy") == FORGOTTEN
    await broker.submit("a", {"name": "a"}, [epoch(1), epoch(2)], "proxy")
    name, attempt, heard = await lease_of(broker)
    assert (name, heard) == ("a", 2)
    assert await broker.report("a", attempt, epoch(2)) is True
    assert await broker.report("a", attempt, epoch(3)) is True
    assert await broker.next("a", 2, SOON_S, "proxy") == epoch(3)


@in_a_loop
async def test_of_two_memories_the_longer_one_counts() -> None:
    broker = Broker()
    await broker.submit("a", {"name": "a"}, [epoch(1)], "short")
    await broker.submit("a", {"name": "a"}, [epoch(1), epoch(2), epoch(3)], "long")
    await broker.replay("a", [epoch(1), epoch(2)])
    assert (await lease_of(broker))[2] == 3
    assert queued(broker) == 0


@in_a_loop
async def test_a_job_that_was_finished_is_dropped_when_the_driver_tells_so() -> None:
    broker = Broker()
    await submit(broker, "a", "b")
    _, attempt, _ = await lease_of(broker)
    watching = asyncio.create_task(broker.watch("a", attempt, SOON_S))
    await asyncio.sleep(0)
    for name in ("a", "b"):
        await broker.replay(name, [epoch(1), epoch(2), COMPLETED])
    assert await asyncio.wait_for(watching, 1.0) is True
    assert queued(broker) == 0
    assert await heard_of(broker, "a") == [1, 2, 3]


@in_a_loop
async def test_a_follower_beyond_the_end_is_given_the_end_again() -> None:
    broker = Broker()
    await broker.submit("a", {"name": "a"}, [epoch(1), epoch(2)], "proxy")
    await broker.replay("a", [epoch(1), epoch(2, End.STOPPED)])
    end = await broker.next("a", 2, SOON_S, "proxy")
    assert isinstance(end, Message)
    assert (end.epoch, end.end) == (2, "stopped")


@in_a_loop
async def test_leases_of_the_former_incarnation_are_unknown_and_its_attempts_never_come_again() -> None:
    former = Broker()
    await submit(former, "a")
    _, old, _ = await lease_of(former)
    time.sleep(0.001)
    broker = Broker()
    assert await broker.watch("a", old, SOON_S) is True
    assert await broker.report("a", old, epoch(1)) is False
    await submit(broker, "a")
    _, attempt, _ = await lease_of(broker)
    assert attempt > old
    assert await broker.watch("a", old, NEVER_S) is True
    assert await broker.report("a", old, epoch(1)) is False
    assert await broker.born(0, SOON_S) > await former.born(0, SOON_S)


@in_a_loop
async def test_a_broker_that_came_back_gives_out_nothing_before_the_quiet_is_over() -> None:
    began = time.monotonic()
    broker = Broker(quiet_s=0.2)
    await submit(broker, "a")
    assert (await lease_of(broker))[0] == "a"
    assert time.monotonic() - began >= 0.2


@in_a_loop
async def test_what_is_done_outside_the_slots_goes_on_at_a_broker_that_came_back() -> None:
    broker = Broker()
    attempt = await Broker().expect("teacher", holder="driver")
    assert await broker.report("teacher", attempt, epoch(2)) is False
    assert await broker.next("teacher", 1, SOON_S, "driver") == FORGOTTEN
    await broker.expect("teacher", [epoch(1)], "driver")
    assert await broker.report("teacher", attempt, epoch(3)) is True
    assert await broker.next("teacher", 1, SOON_S, "driver") == epoch(3)


@in_a_loop
async def test_a_proxy_that_was_started_again_is_told_what_tune_has_already() -> None:
    broker = Broker()
    assert await broker.submit("a", {"name": "a"}, [], "trial") == 0
    _, attempt, _ = await lease_of(broker)
    for number in (1, 2, 3):
        await broker.report("a", attempt, epoch(number))
        assert await broker.next("a", number - 1, SOON_S, "trial") == epoch(number)
    # It asked for the third message, so it had passed the second on; whether the third arrived nobody knows.
    assert await broker.submit("a", {"name": "a"}, [], "trial") == 2
    assert await broker.submit("a", {"name": "a"}, [], "another trial") == 0
    assert queued(broker) == 0


@in_a_loop
async def test_a_job_for_which_nobody_asks_is_dropped_and_goes_on_when_asked_for() -> None:
    broker = Broker(orphan_s=0.05)
    await submit(broker, "a")
    _, old, _ = await lease_of(broker)
    await broker.report("a", old, epoch(1))
    assert await asyncio.wait_for(broker.watch("a", old, SOON_S), 2.0) is True
    assert await broker.report("a", old, epoch(2)) is False
    assert await broker.next("a", 1, SOON_S) == FORGOTTEN
    await submit(broker, "a")
    name, attempt, heard = await lease_of(broker)
    assert (name, heard) == ("a", 1)
    assert attempt > old


@in_a_loop
async def test_a_job_for_which_somebody_waits_is_no_orphan() -> None:
    broker = Broker(orphan_s=0.05)
    await submit(broker, "a")
    _, attempt, _ = await lease_of(broker)
    waiting = asyncio.create_task(broker.next("a", 0, SOON_S))
    assert await broker.watch("a", attempt, 0.3) is False
    await broker.report("a", attempt, COMPLETED)
    assert await waiting == COMPLETED


@pytest.mark.parametrize("reason", ["cannot write last.pt: No space left on device", None])
def test_storage_that_is_full_ends_no_job_but_all_hope(reason: str | None) -> None:
    @in_a_loop
    async def run() -> None:
        broker = Broker()
        await submit(broker, "a", "b")
        _, attempt, _ = await lease_of(broker)
        waiting = asyncio.create_task(broker.next("b", 0, SOON_S))
        await asyncio.sleep(0)
        message = Message(end=End.FAILED, reason=reason, hopeless=True)
        assert await broker.report("a", attempt, message) is False
        told = await waiting
        assert isinstance(told, Message)
        assert told.end == "failed"
        assert await broker.last("a") is None
        assert await broker.failure() == (reason or "a slot can do no job")

    run()
