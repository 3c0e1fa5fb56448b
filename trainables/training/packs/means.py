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

    def add(self, losses: LaneLosses, norms_L: Tensor | None) -> None:
        """Take in a step: losses, and the gradients' norms where they are known."""
        self._count += 1
        norms = {} if norms_L is None else {"gradient_norm": norms_L}
        for name, value_L in {"loss": losses.total_L, **losses.scalars, **norms}.items():
            value_L = value_L.detach().float()
            name = f"train/{name}"
            self._sums_L[name] = self._sums_L[name] + value_L if name in self._sums_L else value_L

    def keep(self, lanes: Sequence[int]) -> None:
        """Leave these lanes alone, in this order."""
        self._sums_L = {name: sums_L[list(lanes)] for name, sums_L in self._sums_L.items()}

    def result(self) -> list[dict[str, float]]:
        """The means over the steps, by lane and name."""
        names = list(self._sums_L)
        each = (torch.stack(list(self._sums_L.values()), dim=1) / max(self._count, 1)).tolist()
        return [dict(zip(names, values, strict=True)) for values in each]
