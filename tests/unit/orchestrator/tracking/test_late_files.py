"""Files that the artifact store does not take now."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.tracking.faults.errors import StoreAway
from orchestrator.tracking.faults.late_files import LateFiles
from orchestrator.tracking.faults.waits import doubled_wait_s

AWAY = StoreAway("planted")


class Store:
    """Takes what is not among `refused`; notes what it was asked for."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.refused: set[str] = set()
        self.asked: list[str] = []

    def write(self, name: str) -> Callable[[], None]:
        def write() -> None:
            self.asked.append(name)
            if name in self.refused:
                raise AWAY

        return write

    def late(self, *names: str) -> LateFiles:
        late = LateFiles(clock=lambda: self.now_s)
        for name in names:
            late.add(name, self.write(name), AWAY)
        return late


def attempt(write: Callable[[], None]) -> None:
    write()


@pytest.fixture
def store() -> Store:
    return Store()


def test_a_file_is_tried_again_when_it_is_time_and_then_waits_no_more(store: Store) -> None:
    late = store.late("report")
    late.write(attempt)
    assert (store.asked, len(late), late.error) == ([], 1, "planted")
    store.now_s = 1.0
    late.write(attempt)
    assert (store.asked, len(late), late.error) == (["report"], 0, None)


def test_waits_double_up_to_a_minute(store: Store) -> None:
    late = store.late("report")
    store.refused = {"report"}
    waits: list[float] = []
    last_s = 0.0
    while len(waits) < 8:
        store.now_s += 0.5
        before = len(store.asked)
        late.write(attempt)
        if len(store.asked) > before:
            waits.append(store.now_s - last_s)
            last_s = store.now_s
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_one_that_is_never_taken_keeps_no_other_waiting(store: Store) -> None:
    late = store.late("too large", "report")
    store.refused = {"too large"}
    for _ in range(2):
        late.write(attempt, at_once=True)
    assert store.asked == ["too large", "report", "too large"]
    assert len(late) == 1


def test_the_same_file_waits_once_and_is_not_hoped_for_for_ever(store: Store) -> None:
    late = store.late("report", "report")
    store.refused = {"report"}
    assert len(late) == 1
    hopes = []
    for _ in range(5):
        hopes.append(late.may_come_soon)
        late.write(attempt, at_once=True)
    assert hopes == [True, True, True, True, False]


def test_after_hours_of_attempts_the_wait_is_still_the_longest() -> None:
    waits = [doubled_wait_s(attempts, first_s=1.0, longest_s=15.0) for attempts in (0, 1, 3, 4, 5000)]
    assert waits == [1, 2, 8, 15, 15]
