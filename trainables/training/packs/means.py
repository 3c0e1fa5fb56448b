"""Means over an epoch of what the lanes' losses are, kept on the device until they are asked for."""

# L = lanes

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainables.training.packs.objective import LaneLosses


class LaneMeans:
    """What `RunningMeans` keeps, of every lane."""

    def __init__(self) -> None:
        self._sums_L: dict[str, Tensor] = {}
        self._count = 0

    @property
    def tensors(self) -> list[Tensor]:
        """All that `add` changes, as far as it exists."""
        return list(self._sums_L.values())

    def begin(self, *, stay: bool = False) -> None:
        """Begin an epoch; with `stay` the sums lie where they lay."""
        self._count = 0
        if not stay:
            self._sums_L = {}
        for sums_L in self._sums_L.values():
            sums_L.zero_()

    def add(self, losses: LaneLosses, norms_L: Tensor | None) -> None:
        """Take in a step, in place: losses, and the gradients' norms where they are known."""
        norms = {} if norms_L is None else {"gradient_norm": norms_L}
        for name, value_L in {"loss": losses.total_L, **losses.scalars, **norms}.items():
            value_L = value_L.detach().float()
            sums_L = self._sums_L.get(f"train/{name}")
            if sums_L is None:
                sums_L = self._sums_L[f"train/{name}"] = torch.zeros_like(value_L)
            sums_L.add_(value_L)

    def count(self) -> None:
        """Say that a step was taken in: a replay of one asks nothing of Python."""
        self._count += 1

    def keep(self, lanes: Sequence[int]) -> None:
        """Leave these lanes alone, in this order."""
        self._sums_L = {name: sums_L[list(lanes)] for name, sums_L in self._sums_L.items()}

    def result(self) -> list[dict[str, float]]:
        """The means over the steps, by lane and name."""
        names = list(self._sums_L)
        each = (torch.stack(list(self._sums_L.values()), dim=1) / max(self._count, 1)).tolist()
        return [dict(zip(names, values, strict=True)) for values in each]
