"""What the broker does when workers, slots or all of them are gone."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

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
from trainables.slots.broker import CLOSED, MAX_LOST, Broker
from trainables.slots.messages import End, Message


@in_a_loop
async def test_a_restarted_slot_gets_its_job_back_and_its_former_self_is_refused() -> None:
    broker = Broker()
    await submit(broker, "a", "b")
    _, old, _ = await lease_of(broker, pid=1)
    await broker.report("a", old, epoch(1))
    name, attempt, heard = await lease_of(broker, pid=2)
    assert (name, heard) == ("a", 1)
    assert attempt > old
    assert await broker.report("a", old, epoch(2)) is False
    assert await broker.watch("a", old, NEVER_S) is True
    assert await broker.report("a", attempt, epoch(2)) is True
    assert await heard_of(broker, "a") == [1, 2]


@in_a_loop
async def test_the_job_of_a_lost_slot_is_next() -> None:
    broker = Broker()
    await submit(broker, "a", "b")
    _, old, _ = await lease_of(broker, "slot-0")
    watching = asyncio.create_task(broker.watch("a", old, SOON_S))
    await asyncio.sleep(0)
    await broker.slot_lost("slot-0")
    assert await asyncio.wait_for(watching, 1.0) is True
    name, attempt, _ = await lease_of(broker, "slot-1")
    assert name == "a"
    assert await broker.report("a", old, epoch(1)) is False
    assert await broker.report("a", attempt, epoch(1)) is True
    assert set(await broker.slots()) == {"slot-1"}


@in_a_loop
async def test_a_job_that_nobody_wants_is_not_queued_again_when_its_slot_is_lost() -> None:
    broker = Broker()
    await submit(broker, "a")
    await lease_of(broker, "slot-0")
    await broker.cancel("a")
    await broker.slot_lost("slot-0")
    assert queued(broker) == 0


@in_a_loop
async def test_a_job_is_never_given_to_a_caller_whose_slot_was_lost_or_restarted_meanwhile() -> None:
    """Its answer would go to a process that is gone, and the job would be nobody's."""
    broker = Broker()
    lost = asyncio.create_task(broker.take("slot-0", 1, SOON_S))
    dead = asyncio.create_task(broker.take("slot-1", 2, SOON_S))
    await asyncio.sleep(0)
    await broker.slot_lost("slot-0")
    alive = asyncio.create_task(lease_of(broker, "slot-1", pid=3))
    await asyncio.sleep(0)
    await submit(broker, "a")
    assert (await alive)[0] == "a"
    assert await lost is None
    assert await dead is None


@pytest.mark.parametrize("how", ["restarted", "lost"])
def test_a_job_that_kills_its_workers_is_given_up(how: str) -> None:
    @in_a_loop
    async def kill() -> None:
        broker = Broker()
        await submit(broker, "killer", "b")
        for number in range(MAX_LOST):
            slot = "slot-0" if how == "restarted" else f"slot-{number}"
            assert (await lease_of(broker, slot, pid=number))[0] == "killer"
            if how == "lost":
                await broker.slot_lost(slot)
        assert (await lease_of(broker, "slot-0", pid=99))[0] == "b"
        end = await broker.next("killer", 0, SOON_S)
        assert isinstance(end, Message)
        assert end.end == "failed"
        assert "died 3 times without finishing an epoch" in str(end.reason)

    kill()


@in_a_loop
async def test_a_job_that_gets_on_between_losses_is_not_given_up() -> None:
    broker = Broker()
    await submit(broker, "a")
    for number in range(1, 4 * MAX_LOST):
        _, attempt, _ = await lease_of(broker, pid=number)
        if number % (MAX_LOST - 1) == 0:
            await broker.report("a", attempt, epoch(number))
    assert (await lease_of(broker, pid=99))[0] == "a"


@in_a_loop
async def test_when_no_job_will_ever_be_done_everybody_is_told() -> None:
    broker = Broker()
    await submit(broker, "a", "b")
    _, attempt, _ = await lease_of(broker)
    await broker.report("a", attempt, epoch(1))
    waiting = [
        asyncio.create_task(broker.next("a", 1, SOON_S)),
        asyncio.create_task(broker.next("b", 0, SOON_S)),
    ]
    await asyncio.sleep(0)
    await broker.fail("no slot is left")
    failed = Message(end=End.FAILED, reason="no slot is left", hopeless=True)
    assert await asyncio.gather(*waiting) == [failed, failed]
    assert await broker.next("a", 0, SOON_S) == epoch(1)
    assert await broker.last("a") == epoch(1)
    assert await broker.failure() == "no slot is left"
    await submit(broker, "later")
    assert await broker.next("later", 0, SOON_S) == failed


@in_a_loop
async def test_closing_sends_all_slots_home() -> None:
    broker = Broker()
    await submit(broker, "a")
    _, attempt, _ = await lease_of(broker, "busy")
    idle = asyncio.create_task(broker.take("idle", 2, SOON_S))
    watching = asyncio.create_task(broker.watch("a", attempt, SOON_S))
    await asyncio.sleep(0)
    await broker.close()
    assert await asyncio.wait_for(idle, 1.0) == CLOSED
    assert await asyncio.wait_for(watching, 1.0) is True
    assert await broker.report("a", attempt, epoch(1)) is False
    # The busy slot comes back with a job that is not finished: it must not get it again.
    assert await broker.take("busy", 1, SOON_S) == CLOSED
    assert await broker.take("late", 3, SOON_S) == CLOSED


@in_a_loop
async def test_slots_are_counted_with_their_jobs() -> None:
    broker = Broker()
    await submit(broker, "a", "b")
    for name in ("a", "b"):
        _, attempt, _ = await lease_of(broker, pid=7)
        await broker.report(name, attempt, COMPLETED)
    await broker.take("idle", 8, NEVER_S)
    await submit(broker, "c")
    await lease_of(broker, "busy", pid=9)
    slots = await broker.slots()
    assert {name: (slot["pid"], slot["jobs"], slot["busy"]) for name, slot in slots.items()} == {
        "slot-0": (7, 2, 0),
        "idle": (8, 0, 0),
        "busy": (9, 1, 1),
    }


class Crowd:
    """Slots that die now and then, and two followers of each job, against one broker."""

    def __init__(self, seed: int, *, epochs: int) -> None:
        self.broker = Broker()
        self.done = Counter[str]()
        self._chance = random.Random(seed)
        self._epochs = epochs

    async def slot(self, name: str) -> None:
        for pid in range(10_000):
            answer = await self.broker.take(name, pid, 60.0)
            if answer == CLOSED:
                return
            assert isinstance(answer, dict)
            watch = self.broker.watch(answer["job"]["name"], answer["attempt"], 60.0)
            watching = asyncio.create_task(watch)
            await self._work(answer)
            if not watching.done():  # the worker died, and its watch with it
                watching.cancel()

    async def follow(self, name: str) -> list[int]:
        await self._pause()
        await submit(self.broker, name)
        heard: list[Message] = []
        while not heard or heard[-1].end is None:
            message = await self.broker.next(name, len(heard), 60.0)
            assert isinstance(message, Message)
            heard.append(message)
            await self._pause()
        return [message.epoch for message in heard]

    async def _work(self, lease: dict[str, Any]) -> None:
        name = lease["job"]["name"]
        for number in range(lease["heard"] // 2 * 2 + 1, self._epochs + 1):
            await self._pause()
            if self._chance.random() < 0.05:
                return
            end = End.COMPLETED if number == self._epochs else None
            assert await self.broker.report(name, lease["attempt"], epoch(number, end))
        self.done[name] += 1

    async def _pause(self) -> None:
        for _ in range(self._chance.randrange(3)):
            await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(3))
def test_every_job_is_done_exactly_once_whoever_dies_or_waits(seed: int) -> None:
    """All waits are longer than the test may take, so a wake-up that is lost fails it."""
    crowd, jobs = Crowd(seed, epochs=4), [f"job-{number}" for number in range(120)]

    @in_a_loop
    async def run() -> None:
        slots = [asyncio.create_task(crowd.slot(f"slot-{number}")) for number in range(6)]
        heard = await asyncio.gather(*(crowd.follow(name) for name in jobs for _ in range(2)))
        await crowd.broker.close()
        await asyncio.gather(*slots)
        assert heard == [[1, 2, 3, 4]] * (2 * len(jobs))

    run()
    assert crowd.done == Counter(jobs)
