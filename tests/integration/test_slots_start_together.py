"""Slots whose controllers start at once in threads of the driver, while other threads write to its log."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from cluster.session import connect
from tests.integration.slot_experiments import shaped, slots_of
from tests.integration.watched_search import wait_until
from trainables.slots.slot_trainer import can_be_in_driver

pytestmark = pytest.mark.ray
SLOTS = 3


@pytest.fixture
def busy_log() -> Iterator[logging.Handler]:
    """A handler of the process's log, to which a thread writes all the time."""
    handler, over = logging.NullHandler(), threading.Event()
    log = logging.getLogger("tests.busy")
    log.addHandler(handler)

    def write() -> None:
        while not over.wait(0.001):
            log.warning("busy")

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    yield handler
    over.set()
    thread.join()
    log.removeHandler(handler)


def test_slots_start_at_once_and_leave_the_log_of_the_driver_alone(
    tmp_path: Path, busy_log: logging.Handler
) -> None:
    """Ray Train's controller would take away all handlers of its process; two would wait for each other."""
    assert can_be_in_driver()
    before = list(logging.getLogger().handlers)
    with connect("local", cpus=SLOTS), slots_of(shaped(slots=SLOTS), tmp_path) as workers:
        wait_until(lambda: len(ray.get(workers.broker.slots.remote())) == SLOTS, "all slots", timeout_s=240)
        assert logging.getLogger().handlers == before
        assert logging.getLogger("tests.busy").handlers == [busy_log]
        assert busy_log in [reference() for reference in logging._handlerList]  # type: ignore[attr-defined]
