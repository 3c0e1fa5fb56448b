"""The running means of all lanes' weights; see `trainables.training.learners.ema`."""

# L = lanes, P = numbers in the parameters of one network

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainables.training.learners.ema import decay_at
from trainables.training.packs.weights import LaneWeights


class LaneAverages:
    """A mean of each lane's weights and statistics, as `WeightAverage` keeps one network's."""

    def __init__(self, model: nn.Module) -> None:
        """No lane yet; `model` is one of the networks, on the device."""
        self.means = LaneWeights(model)
        self._decays: list[float] = []
        self.steps: list[int] = []
        """Of each lane, that the mean has taken in."""

    def append(self, model: nn.Module, decay: float, steps: int = 0) -> None:
        """A lane more, whose mean is this network."""
        self.means.append(model)
        self._decays.append(decay)
        self.steps.append(steps)

    def keep(self, lanes: Sequence[int]) -> None:
        """Leave these lanes alone, in this order."""
        self.means.keep(lanes)
        self._decays = [self._decays[lane] for lane in lanes]
        self.steps = [self.steps[lane] for lane in lanes]

    @torch.no_grad()
    def update(self, weights: LaneWeights) -> None:
        """Take in the networks after a step."""
        pairs = zip(self._decays, self.steps, strict=True)
        taken = [1 - decay_at(decay, steps) for decay, steps in pairs]
        taken_L = torch.tensor(taken, device=weights.values_LP.device)
        self.means.values_LP.lerp_(weights.values_LP.detach(), taken_L[:, None])
        for name, rows in self.means.buffers.items():
            now = weights.buffers[name]
            if rows.is_floating_point():
                rows.lerp_(now, taken_L.view(-1, *[1] * (rows.ndim - 1)))
            else:
                rows.copy_(now)
        self.steps = [steps + 1 for steps in self.steps]

    def state(self, lane: int) -> dict[str, Tensor]:
        """The lane's mean, by the names of the network's own state."""
        return self.means.state_dict(lane)
