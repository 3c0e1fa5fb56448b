"""Views of images that lie in files: drawn, decoded and rendered for each batch, and not kept."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from torch import Tensor

from trainables.data.prefetch import Prefetcher
from trainables.views.showing import SplitViews

# B = samples in the batch

_Key = tuple[str, int, bytes]


class FileViews:
    """Every view of a training split's samples; those of the next batch may be asked for ahead."""

    def __init__(self, views: SplitViews) -> None:
        """Nothing is decoded yet."""
        self._views = views
        self._prefetcher: Prefetcher[_Key, Tensor] = Prefetcher()

    def images(self, bank: str, view: int, rows_B: Tensor) -> Tensor:
        """uint8 BxCxHxW on the device: one view of these rows.

        Raises:
            DataError: images cannot be decoded; their files are named.
        """
        rows_B = rows_B.cpu()
        return self._prefetcher.take(
            _key(bank, view, rows_B), partial(self._views.viewer(bank, view).images, rows_B)
        )

    def expect(self, planes: Iterable[tuple[str, int]], rows_B: Tensor) -> None:
        """Begin to make the images of these rows (on the CPU) in these views, each a bank and a number."""
        self._prefetcher.expect(
            {
                _key(bank, view, rows_B): partial(self._views.viewer(bank, view).images, rows_B)
                for bank, view in planes
            }
        )


def _key(bank: str, view: int, rows_B: Tensor) -> _Key:
    return bank, view, rows_B.numpy().tobytes()
