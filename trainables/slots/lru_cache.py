"""What a worker keeps between trials, within bounds: the least recently used goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


def _weightless(_: object) -> int:
    return 0


class LruCache(Generic[K, V]):
    """At most `max_items` values by key.

    With `max_bytes`, a value is made only after others have gone until what is left holds no more than
    that. Sizes are asked anew each time, since values may grow while they are kept.
    """

    def __init__(
        self, max_items: int, *, max_bytes: int | None = None, size: Callable[[V], int] = _weightless
    ) -> None:
        """Nothing is kept at first.

        Raises:
            ValueError: `max_items` is not positive, so that nothing could be kept.
        """
        if max_items < 1:
            raise ValueError(f"max_items is {max_items}; keep at least 1")
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._size = size
        self._items: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value of this key, made when it is not kept; it is then the most recently used."""
        if key not in self._items:
            self._evict()
            self._items[key] = make()
        self._items.move_to_end(key)
        return self._items[key]

    def grow(self, max_items: int) -> None:
        """Keep so many values from now on, if that is more than before."""
        self._max_items = max(self._max_items, max_items)

    def keys(self) -> tuple[K, ...]:
        """What is kept, the least recently used first."""
        return tuple(self._items)

    def _evict(self) -> None:
        while self._items and (len(self._items) >= self._max_items or self._is_heavy()):
            self._items.popitem(last=False)

    def _is_heavy(self) -> bool:
        return self._max_bytes is not None and sum(map(self._size, self._items.values())) > self._max_bytes
