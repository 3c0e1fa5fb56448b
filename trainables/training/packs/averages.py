"""The running means of all lanes' weights; see `trainables.training.learners.ema`."""

# L = lanes, P = numbers in the parameters of one network

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainables.training.learners.ema import decays_at
from trainables.training.packs.weights import LaneWeights


class LaneAverages:
    """A mean of each lane's weights and statistics, as `WeightAverage` keeps one network's."""

    def __init__(self, model: nn.Module) -> None:
        """No lane yet; `model` is one of the networks, on the device."""
        self.means = LaneWeights(model)
        # In double precision, as Python has them for a network alone.
        self._decays_L = torch.empty(0, dtype=torch.float64, device=self.means.values_LP.device)
        self._steps_L = torch.empty_like(self._decays_L)

    @property
    def tensors(self) -> list[Tensor]:
        """All that `update` changes."""
        return [self.means.values_LP, *self.means.buffers.values(), self._steps_L]

    def steps(self, lane: int) -> int:
        """How many steps the lane's mean has taken in."""
        return int(self._steps_L[lane])

    def append(self, model: nn.Module, decay: float, steps: int = 0) -> None:
        """A lane more, whose mean is this network."""
        self.means.append(model)
        self._decays_L = torch.cat([self._decays_L, self._decays_L.new_tensor([decay])])
        self._steps_L = torch.cat([self._steps_L, self._steps_L.new_tensor([steps])])

    def keep(self, lanes: Sequence[int]) -> None:
        """Leave these lanes alone, in this order."""
        self.means.keep(lanes)
        self._decays_L, self._steps_L = self._decays_L[list(lanes)], self._steps_L[list(lanes)]

    @torch.no_grad()
    def update(self, weights: LaneWeights) -> None:
        """Take in the networks after a step, in place."""
        taken_L = (1 - decays_at(self._decays_L, self._steps_L)).float()
        self.means.values_LP.lerp_(weights.values_LP.detach(), taken_L[:, None])
        for name, rows in self.means.buffers.items():
            now = weights.buffers[name]
            if rows.is_floating_point():
                rows.lerp_(now, taken_L.view(-1, *[1] * (rows.ndim - 1)))
            else:
                rows.copy_(now)
        self._steps_L.add_(1)

    def state_dict(self, lane: int) -> dict[str, Tensor]:
        """The lane's mean, by the names of the network's own state."""
        return self.means.state_dict(lane)
