"""Views of images that lie in files: drawn, decoded and rendered for each batch, and not kept."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor

from trainables.config import ViewsConfig
from trainables.data import ImageSplit
from trainables.data.prefetch import Ahead
from trainables.signals import Mixing
from trainables.tensors import to_device
from trainables.views.showing import Viewer

# N = training samples, B = samples in the batch, K = images that are mixed into one

_Key = tuple[str, int, bytes]


class FileViews:
    """Every view of a training split's samples; those of the next batch may be asked for ahead."""

    def __init__(self, split: ImageSplit, views: ViewsConfig, *, seed: int, device: torch.device) -> None:
        """`seed` is that of the views; nothing is decoded yet."""
        self._split = split
        self._views = views
        self._seed = seed
        self._device = device
        self._ahead: Ahead[_Key, Tensor] = Ahead()

    def images(self, bank: str, view: int, rows_B: Tensor) -> Tensor:
        """uint8 BxCxHxW on the device: one view of these rows.

        Raises:
            DataError: images cannot be decoded; their files are named.
        """
        rows_B = rows_B.cpu()
        return self._ahead.take(_key(bank, view, rows_B), partial(self._viewer(bank, view).images, rows_B))

    def expect(self, planes: Iterable[tuple[str, int]], rows_B: Tensor) -> None:
        """Begin to make the images of these rows (on the CPU) in these views, each a bank and a number."""
        self._ahead.expect(
            {
                _key(bank, view, rows_B): partial(self._viewer(bank, view).images, rows_B)
                for bank, view in planes
            }
        )

    def mixing(self, bank: str, view: int, rows_B: Tensor, labels_N: Tensor) -> Mixing:
        """Of which samples the images of these rows are made; the labels of all samples are on the device."""
        rows_B = rows_B.cpu()
        sources_BK, shares_BK = self._viewer(bank, view).params(rows_B).sources(rows_B)
        return Mixing(labels_N[to_device(sources_BK, self._device)], to_device(shares_BK, self._device))

    def _viewer(self, bank: str, view: int) -> Viewer:
        return Viewer(self._split, self._views.bank(bank).recipe, self._seed, view, self._device)


def _key(bank: str, view: int, rows_B: Tensor) -> _Key:
    return bank, view, rows_B.numpy().tobytes()
