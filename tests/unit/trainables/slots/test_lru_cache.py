from __future__ import annotations

import pytest

from trainables.slots.lru_cache import LruCache


def test_a_kept_value_is_made_once() -> None:
    cache: LruCache[str, list[int]] = LruCache(2)
    first = cache.get("a", lambda: [1])
    assert cache.get("a", lambda: [2]) is first


def test_the_least_recently_used_goes_first() -> None:
    cache: LruCache[str, str] = LruCache(2)
    for key in ("a", "b", "a", "c"):
        cache.get(key, lambda key=key: key.upper())  # type: ignore[misc]
    assert cache.keys() == ("a", "c")
    assert cache.get("b", lambda: "anew") == "anew"
    assert cache.keys() == ("c", "b")


def test_a_cache_grows_and_does_not_shrink() -> None:
    cache: LruCache[str, str] = LruCache(2)
    cache.grow(3)
    cache.grow(1)
    for key in ("a", "b", "c", "d"):
        cache.get(key, key.upper)
    assert cache.keys() == ("b", "c", "d")


def test_heavy_values_go_before_another_is_made() -> None:
    cache: LruCache[int, list[int]] = LruCache(9, max_bytes=10, size=len)
    present: list[tuple[int, ...]] = []

    def make(n_bytes: int) -> list[int]:
        present.append(cache.keys())
        return [0] * n_bytes

    for key, n_bytes in enumerate((4, 6, 1, 20, 3)):
        cache.get(key, lambda n=n_bytes: make(n))  # type: ignore[misc]
    # 4 + 6 hold no more than 10; with 1 more the oldest goes; the 20 go as soon as another is wanted.
    assert present == [(), (0,), (0, 1), (1, 2), ()]


def test_a_value_that_has_grown_counts_with_what_it_holds_now() -> None:
    cache: LruCache[str, list[int]] = LruCache(9, max_bytes=3, size=len)
    cache.get("a", lambda: []).extend([0] * 4)
    cache.get("b", lambda: [0])
    assert cache.keys() == ("b",)


def test_the_value_in_use_stays_however_heavy() -> None:
    cache: LruCache[str, list[int]] = LruCache(1, max_bytes=0, size=len)
    heavy = cache.get("a", lambda: [0] * 9)
    assert cache.get("a", lambda: []) is heavy


def test_a_bound_that_keeps_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="max_items is 0; keep at least 1"):
        LruCache(0)
