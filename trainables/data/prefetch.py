"""Making the next thing while the last one is used: decoding beside training."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


def one_ahead(make: Callable[[K], V], items: Iterable[K]) -> Iterator[V]:
    """`map`, but each value is made in a thread while the one before it is used; two are held at most."""
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        waiting: Future[V] | None = None
        for item in items:
            following = pool.submit(make, item)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()


class Prefetcher(Generic[K, V]):
    """Values that somebody will ask for soon: each is made in a thread, and handed out once."""

    def __init__(self) -> None:
        """Nothing is expected yet, and no thread runs."""
        self._pool: ThreadPoolExecutor | None = None
        self._expected: deque[dict[K, Future[V]]] = deque(maxlen=2)

    def expect(self, wanted: Mapping[K, Callable[[], V]]) -> None:
        """Begin to make these; what was expected two calls ago and was not taken is forgotten."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        if len(self._expected) == self._expected.maxlen:
            for future in self._expected[0].values():
                future.cancel()
        self._expected.append({key: self._pool.submit(make) for key, make in wanted.items()})

    def take(self, key: K, make: Callable[[], V]) -> V:
        """The expected value, or one that is made now; what goes wrong in making it is raised here."""
        for expected in self._expected:
            if key in expected:
                return expected.pop(key).result()
        return make()
