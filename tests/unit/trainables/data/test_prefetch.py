"""Values made in a thread before they are asked for."""

from __future__ import annotations

import threading

import pytest

from trainables.data.prefetch import Prefetcher, one_ahead


def test_values_come_in_order_and_at_most_one_is_made_ahead() -> None:
    made: list[int] = []

    def make(item: int) -> int:
        made.append(item)
        return item * item

    seen = []
    for value in one_ahead(make, range(6)):
        seen.append(value)
        assert len(made) <= len(seen) + 1
    assert seen == [0, 1, 4, 9, 16, 25]
    assert list(one_ahead(make, [])) == []


def test_the_next_value_is_made_while_one_is_used() -> None:
    second = threading.Event()
    values = one_ahead(lambda item: second.set() if item else None, range(2))
    next(values)
    assert second.wait(10)
    values.close()  # type: ignore[attr-defined]


def test_what_goes_wrong_is_raised_where_the_value_is_taken() -> None:
    values = one_ahead(lambda item: 1 // item, [1, 0])
    assert next(values) == 1
    with pytest.raises(ZeroDivisionError):
        next(values)


def test_an_expected_value_is_made_once_and_handed_out_once() -> None:
    made: list[str] = []

    def make(key: str) -> int:
        made.append(key)
        return len(made)

    ahead: Prefetcher[str, int] = Prefetcher()
    ahead.expect({"a": lambda: make("a"), "b": lambda: make("b")})
    assert [ahead.take(key, lambda: make("late")) for key in ("b", "a")] == [2, 1]
    assert ahead.take("a", lambda: make("late")) == 3
    assert made == ["a", "b", "late"]


def test_values_outlive_one_more_expectation_and_no_second() -> None:
    ahead: Prefetcher[int, str] = Prefetcher()
    for key in (1, 2, 3):
        ahead.expect({key: lambda: "expected"})
    assert [ahead.take(key, lambda: "made now") for key in (1, 2, 3)] == ["made now", "expected", "expected"]
