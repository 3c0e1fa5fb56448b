"""The progress table's view of the slots: it never waits for the broker, whatever has become of that."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray

from cluster.session import connect
from orchestrator.search.progress import SlotWatch
from orchestrator.search.progress_table import Slots
from trainables.slots.follower import start_broker

pytestmark = pytest.mark.ray

PATIENCE_S = 60.0
NOBODY = 4_000_000
"""A process id that stands for a slot's."""


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    with connect("local", cpus=1):
        yield


@pytest.fixture
def broker(session: None) -> Any:
    return start_broker(f"watched-{uuid.uuid4().hex}")


def ask_every_time() -> Callable[[], float]:
    """A clock by which it is always time to ask again."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 60.0
        return now

    return clock


def look_until(watch: SlotWatch, wanted: Slots | None) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (found := watch.look()) != wanted:
        assert time.monotonic() < deadline, f"still {found} instead of {wanted}"
        time.sleep(0.05)


def test_slots_are_seen_with_their_jobs(broker: Any) -> None:
    watch = SlotWatch(broker, ask_every_time())
    look_until(watch, Slots(up=0, busy=0))
    ray.get(broker.submit.remote("a", {"name": "a"}))
    ray.get([broker.take.remote(slot, NOBODY, 0.1) for slot in ("slot-0", "slot-1")])
    look_until(watch, Slots(up=2, busy=1))


def test_a_broker_that_does_not_answer_is_not_waited_for(broker: Any) -> None:
    pid = _process_of(broker)
    watch = SlotWatch(broker, ask_every_time())
    look_until(watch, Slots(up=0, busy=0))
    os.kill(pid, signal.SIGSTOP)
    try:
        ray.wait([broker.take.remote("slot-0", NOBODY, 0.1)], timeout=0)
        assert {watch.look() for _ in range(20)} == {Slots(up=0, busy=0)}
    finally:
        os.kill(pid, signal.SIGCONT)
    look_until(watch, Slots(up=1, busy=0))


def test_a_broker_that_is_gone_leaves_the_table_without_slots(broker: Any) -> None:
    watch = SlotWatch(broker, ask_every_time())
    look_until(watch, Slots(up=0, busy=0))
    ray.kill(broker)
    look_until(watch, None)


def _process_of(broker: Any) -> int:
    """Asked of the actor itself: Ray's table says 0 until the actor is up, and 0 is our own process group."""
    pid = int(ray.get(broker.__ray_call__.remote(lambda _: os.getpid())))
    assert pid not in (0, os.getpid())
    return pid
