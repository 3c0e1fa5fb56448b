"""Means over an epoch, kept on the device until they are asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.signals import Losses
from trainables.training.ranks import Team


class RunningMeans:
    """Running means of scalars, kept on the device so that no step waits for a copy."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    @property
    def tensors(self) -> list[Tensor]:
        """All that `add` changes, as far as it exists."""
        return list(self._sums.values())

    def begin(self, *, stay: bool = False) -> None:
        """Begin an epoch; with `stay` the sums lie where they lay."""
        self._count = 0
        if not stay:
            self._sums = {}
        for value in self._sums.values():
            value.zero_()

    def renew(self) -> None:
        """Let go of the sums, if nothing was taken in yet: what is recorded now may have other names."""
        if self._count == 0:
            self._sums = {}

    def count(self) -> None:
        """Say that a step was taken in: the replay of one asks nothing of Python."""
        self._count += 1

    def add(self, losses: Losses, part: float) -> None:
        """Take in the losses of a step, in place; `part` is this rank's part of the batch."""
        self._add("train/loss", losses.total, part)
        for scalars in (losses.terms, losses.gauges):
            for name, value in scalars.items():
                self._add(f"train/{name}", value, part)

    def result(self, team: Team) -> dict[str, float]:
        """The means over all steps and ranks by name, as `train/NAME`."""
        names = list(self._sums)
        values = team.sum(torch.stack([self._sums[name] for name in names])) / max(self._count, 1)
        return dict(zip(names, values.tolist(), strict=True))

    def _add(self, name: str, value: Tensor, part: float) -> None:
        value = scaled(value.detach().float(), part)
        if name not in self._sums:
            self._sums[name] = torch.zeros_like(value)
        self._sums[name].add_(value)


def scaled(value: Tensor, factor: float) -> Tensor:
    """The product; a single rank skips the multiplication: on a GPU it is one more kernel."""
    return value if factor == 1 else value * factor
