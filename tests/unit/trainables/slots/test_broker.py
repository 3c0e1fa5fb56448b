from __future__ import annotations

import asyncio

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
from trainables.slots.broker import Broker


@in_a_loop
async def test_jobs_are_taken_in_the_order_in_which_they_came() -> None:
    broker = Broker()
    await submit(broker, "a", "b", "c")
    assert queued(broker) == 3
    assert [(await lease_of(broker, f"slot-{n}"))[0] for n in range(3)] == ["a", "b", "c"]
    assert queued(broker) == 0


@in_a_loop
async def test_a_slot_that_waits_gets_the_job_that_comes() -> None:
    broker = Broker()
    waiting = asyncio.create_task(lease_of(broker))
    await asyncio.sleep(0)
    await submit(broker, "a")
    assert (await waiting)[0] == "a"


@in_a_loop
async def test_a_slot_gets_nothing_when_no_job_comes() -> None:
    assert await Broker().take("slot-0", 1, NEVER_S) is None


@in_a_loop
async def test_messages_arrive_in_order_and_at_once() -> None:
    broker = Broker()
    await submit(broker, "a")
    _, attempt, _ = await lease_of(broker)
    first = asyncio.create_task(broker.next("a", 0, SOON_S))
    await asyncio.sleep(0)
    assert await broker.report("a", attempt, epoch(1))
    assert await first == epoch(1)
    assert await broker.report("a", attempt, epoch(2))
    assert await broker.report("a", attempt, COMPLETED)
    assert [await broker.next("a", seen, SOON_S) for seen in range(3)] == [epoch(1), epoch(2), COMPLETED]
    assert await broker.last("a") == COMPLETED


@in_a_loop
async def test_two_who_wait_for_the_same_message_both_get_it() -> None:
    broker = Broker()
    await submit(broker, "a")
    _, attempt, _ = await lease_of(broker)
    waiting = [asyncio.create_task(broker.next("a", 0, SOON_S)) for _ in range(2)]
    await asyncio.sleep(0)
    await broker.report("a", attempt, epoch(1))
    assert await asyncio.gather(*waiting) == [epoch(1), epoch(1)]


@in_a_loop
async def test_nothing_is_heard_when_nothing_is_said() -> None:
    broker = Broker()
    await submit(broker, "a")
    assert await broker.next("a", 0, NEVER_S) is None
    assert await broker.last("a") is None
    assert await broker.last("unheard of") is None


@in_a_loop
async def test_a_job_submitted_twice_is_done_once_and_heard_by_both() -> None:
    broker = Broker()
    await submit(broker, "a", holder="one")
    await submit(broker, "a", holder="other")
    _, attempt, _ = await lease_of(broker)
    assert await broker.take("slot-1", 2, NEVER_S) is None
    await broker.report("a", attempt, COMPLETED)
    await submit(broker, "a")
    assert queued(broker) == 0
    assert await broker.next("a", 0, SOON_S) == COMPLETED


@in_a_loop
async def test_a_cancelled_job_is_never_taken() -> None:
    broker = Broker()
    await submit(broker, "a", "b")
    await broker.cancel("a")
    assert (await lease_of(broker))[0] == "b"


@in_a_loop
async def test_a_slot_is_told_at_once_that_its_job_was_cancelled() -> None:
    broker = Broker()
    await submit(broker, "a")
    _, attempt, _ = await lease_of(broker)
    watching = asyncio.create_task(broker.watch("a", attempt, SOON_S))
    await asyncio.sleep(0)
    assert not watching.done()
    await broker.cancel("a")
    assert await asyncio.wait_for(watching, 1.0) is True
    assert await broker.report("a", attempt, epoch(1)) is False
    await submit(broker, "b")
    assert (await lease_of(broker))[0] == "b"


@in_a_loop
async def test_a_job_that_another_follows_survives_a_cancellation() -> None:
    broker = Broker()
    await submit(broker, "a", holder="one")
    await submit(broker, "a", holder="other")
    _, attempt, _ = await lease_of(broker)
    await broker.cancel("a", "one")
    await broker.cancel("a", "one")
    assert await broker.watch("a", attempt, NEVER_S) is False
    assert await broker.report("a", attempt, epoch(1)) is True
    await broker.cancel("a", "other")
    assert await broker.watch("a", attempt, NEVER_S) is True


@in_a_loop
async def test_cancelling_a_finished_or_unknown_job_changes_nothing() -> None:
    broker = Broker()
    await submit(broker, "a")
    _, attempt, _ = await lease_of(broker)
    await broker.report("a", attempt, COMPLETED)
    await broker.cancel("a")
    await broker.cancel("unheard of")
    assert await broker.next("a", 0, SOON_S) == COMPLETED


@in_a_loop
async def test_a_cancelled_job_that_comes_again_goes_on_after_what_was_heard() -> None:
    broker = Broker()
    await submit(broker, "a")
    _, old, _ = await lease_of(broker)
    await broker.report("a", old, epoch(1))
    await broker.report("a", old, epoch(2))
    await broker.cancel("a")
    await submit(broker, "a")
    _, attempt, heard = await lease_of(broker, "slot-1")
    assert heard == 2
    assert await broker.watch("a", old, NEVER_S) is True
    assert await broker.report("a", old, epoch(3)) is False
    assert await broker.report("a", attempt, epoch(2)) is True
    assert await broker.report("a", attempt, epoch(3)) is True
    assert await heard_of(broker, "a") == [1, 2, 3]


@in_a_loop
async def test_the_end_of_a_job_ends_the_watch_over_it() -> None:
    broker = Broker()
    await submit(broker, "a")
    _, attempt, _ = await lease_of(broker)
    watching = asyncio.create_task(broker.watch("a", attempt, SOON_S))
    await asyncio.sleep(0)
    await broker.report("a", attempt, COMPLETED)
    assert await asyncio.wait_for(watching, 1.0) is True


@in_a_loop
async def test_epochs_that_were_passed_on_are_dropped() -> None:
    broker = Broker()
    await submit(broker, "a")
    _, attempt, _ = await lease_of(broker)
    for number in (1, 2, 1, 2, 3):
        assert await broker.report("a", attempt, epoch(number))
    assert await heard_of(broker, "a") == [1, 2, 3]


@in_a_loop
async def test_nothing_is_heard_after_the_end() -> None:
    broker = Broker()
    await submit(broker, "a")
    _, attempt, _ = await lease_of(broker)
    assert await broker.report("a", attempt, COMPLETED)
    assert not await broker.report("a", attempt, epoch(4))
    assert not await broker.report("unheard of", 1, epoch(4))
    assert await heard_of(broker, "a") == [3]


@in_a_loop
async def test_a_finished_job_of_an_earlier_run_is_answered_from_memory() -> None:
    broker = Broker()
    await broker.replay("a", [epoch(1), epoch(2), COMPLETED])
    await submit(broker, "a")
    assert queued(broker) == 0
    assert await heard_of(broker, "a") == [1, 2, 3]
    assert await broker.take("slot-0", 1, NEVER_S) is None


@in_a_loop
async def test_an_unfinished_job_of_an_earlier_run_goes_on_after_its_messages() -> None:
    broker = Broker()
    await broker.replay("a", [epoch(1), epoch(2)])
    assert queued(broker) == 0
    await submit(broker, "a")
    assert await broker.next("a", 1, SOON_S) == epoch(2)
    _, attempt, heard = await lease_of(broker)
    assert heard == 2
    for number in (1, 2, 3):
        assert await broker.report("a", attempt, epoch(number))
    assert await heard_of(broker, "a") == [1, 2, 3]


@in_a_loop
async def test_what_is_done_outside_the_slots_is_heard_too() -> None:
    broker = Broker()
    attempt = await broker.expect("teacher")
    assert await broker.report("teacher", attempt, epoch(1))
    assert await broker.next("teacher", 0, SOON_S) == epoch(1)
    assert queued(broker) == 0
