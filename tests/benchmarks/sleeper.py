"""A student that mostly sleeps, so that more slots than cores can train at once."""

from __future__ import annotations

import time

from torch import Tensor, nn


class Sleeper(nn.Module):
    """Sleeps a while for each training batch; what it learns is of no account."""

    def __init__(self, n_classes: int, *, pixels: int, sleep_s: float) -> None:
        super().__init__()
        self._sleep_s = sleep_s
        self._layers = nn.Sequential(nn.Flatten(), nn.Linear(pixels, n_classes))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits BxC."""
        if self.training:
            time.sleep(self._sleep_s)
        logits_BC: Tensor = self._layers(images_BCHW)
        return logits_BC


def sleeper(*, n_classes: int, pixels: int, sleep_s: float) -> nn.Module:
    """The factory that an experiment names."""
    return Sleeper(n_classes, pixels=pixels, sleep_s=sleep_s)
