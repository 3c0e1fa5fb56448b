"""The broker's side of packs: which jobs a slot is given beside one that it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.unit.trainables.slots.broker_messages import COMPLETED, SOON_S, epoch, in_a_loop
from trainables.config import (
    CeConfig,
    DataConfig,
    DataName,
    ModelConfig,
    ModelName,
    Role,
    TrainingConfig,
    TrialSpec,
    ViewsConfig,
    WorkbenchSpec,
)
from trainables.slots.broker import Broker
from trainables.slots.messages import Lease, TrainJob

WORKBENCH = WorkbenchSpec(
    data=DataConfig(name=DataName.DIGITS),
    views=ViewsConfig(),
    view_seed=1,
    cache_uri=None,
    cache_manifest=None,
    checkpoints=str(Path("students")),
)


def job(name: str, width: int = 4, **training: Any) -> dict[str, Any]:
    trial = TrialSpec(
        trial_id=name,
        role=Role.SEARCH,
        objective=CeConfig(),
        student=ModelConfig(name=ModelName.CONVNET, width=width),
        training=TrainingConfig(**training),
        seed=1,
    )
    return TrainJob(workbench=WORKBENCH, trial=trial).plain()


async def submitted(*jobs: dict[str, Any]) -> Broker:
    broker = Broker()
    for plain in jobs:
        await broker.submit(plain["trial"]["trial_id"], plain)
    return broker


async def take(broker: Broker, slot: str = "slot-0", pid: int = 1) -> Lease:
    lease = await broker.take(slot, pid, SOON_S)
    assert isinstance(lease, dict)
    return Lease.from_plain(lease)


async def more(broker: Broker, beside: str, room: int, slot: str = "slot-0", pid: int = 1) -> list[Lease]:
    return [Lease.from_plain(plain) for plain in await broker.take_more(slot, pid, beside, 8, room)]


def name_of(lease: Lease) -> str:
    return str(lease.job["trial"]["trial_id"])


@in_a_loop
async def test_a_slot_is_given_the_jobs_that_fit_and_no_other() -> None:
    fork = job("d", lr=0.2, epochs=3)
    broker = await submitted(
        job("a"), job("b", width=8), job("c", batch_size=32), fork, job("e", freeze=["0"])
    )
    assert name_of(await take(broker)) == "a"
    assert [name_of(lease) for lease in await more(broker, "a", 7)] == ["d"]  # rate and epochs are its own
    assert [name_of(await take(broker, f"slot-{n}")) for n in (1, 2, 3)] == ["b", "c", "e"]


@in_a_loop
async def test_a_slot_takes_what_it_has_room_for_and_leaves_others_their_share() -> None:
    broker = await submitted(*(job(f"j{n}") for n in range(9)))
    await take(broker)
    assert len(await more(broker, "j0", 2)) == 2
    await take(broker, "slot-1", 2)
    assert len(await more(broker, "j3", 7, "slot-1", 2)) == 3  # half of the five that wait, rounded up
    assert len(await more(broker, "j0", 7)) == 1
    assert (await broker.slots())["slot-0"]["lanes"] == 8


@in_a_loop
async def test_what_a_slot_held_when_it_died_is_done_again_alone() -> None:
    broker = await submitted(job("a"), job("b"), job("c"))
    first = await take(broker)
    (second, third) = await more(broker, "a", 7)
    assert await broker.report("b", second.attempt, COMPLETED)
    assert await broker.report("a", first.attempt, epoch(1))
    again = await take(broker, pid=2)
    assert (name_of(again), again.alone) == ("c", True)
    assert not await broker.report("c", third.attempt, epoch(1))
    assert await more(broker, "c", 7, pid=2) == []
    assert name_of(await take(broker, "slot-1", 3)) == "a"


@in_a_loop
async def test_a_slot_that_was_started_again_meanwhile_is_given_nothing() -> None:
    broker = await submitted(job("a"), job("b"))
    await take(broker)
    assert await more(broker, "a", 7, pid=99) == []
    assert await more(broker, "unknown", 7) == []


@in_a_loop
async def test_a_job_that_is_cancelled_while_it_waits_joins_no_pack() -> None:
    broker = await submitted(job("a"), job("b"))
    await take(broker)
    await broker.cancel("b")
    assert await more(broker, "a", 7) == []


@in_a_loop
async def test_a_student_that_computes_as_int8_joins_no_pack() -> None:
    aware = {**job("b"), "fake_quantised": "student.safetensors"}
    broker = await submitted(job("a"), aware, job("c"))
    await take(broker)
    assert [name_of(lease) for lease in await more(broker, "a", 7)] == ["c"]
