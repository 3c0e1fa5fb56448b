"""A running mean of a student's weights, which is often a better student than the weights themselves."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from trainables.models.features import untapped
from trainables.models.foreign.copies import copied

_HEAD_START: Final = 10

# L = means


class WeightAverage:
    """The exponential moving average of a network's parameters and statistics (Polyak and Juditsky, 1992).

    At step t, counted from 0: mean ← d · mean + (1 - d) · weights, with d = min(decay, (1 + t) / (10 + t)).
    So the mean forgets the weights that training began with, however short it is. Running statistics of
    batch norm are averaged like weights; whole numbers, such as counters, are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """It starts as the network is; `decay` lies in [0, 1)."""
        self.model = untapped(copied(model)).requires_grad_(False)
        self.steps = 0
        self._decay = decay
        self._taken: Tensor | None = None

    def hold(self, device: torch.device) -> None:
        """Keep how much of a step is taken in in a tensor, which `count` writes: `update` can be replayed."""
        self._taken = torch.zeros((), device=device)

    def count(self) -> None:
        """Before `update`, where it may be a replay: say how much of the step is taken in, and count it."""
        if self._taken is not None:
            self._taken.fill_(1 - decay_at(self._decay, self.steps))
            self.steps += 1

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the network after a step."""
        means, values = _by_name(self.model), _by_name(model)
        real = [name for name, mean in means.items() if mean.is_floating_point()]
        if self._taken is not None:
            for name, mean in means.items():
                if name in real:
                    mean.lerp_(values[name], self._taken.to(mean.dtype))
                else:
                    mean.copy_(values[name])
            return
        decay = decay_at(self._decay, self.steps)
        averaging = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        averaging([means[name] for name in real], [values[name] for name in real], self.steps)
        for name in means.keys() - set(real):
            means[name].copy_(values[name])
        self.steps += 1

    def state(self) -> dict[str, Tensor]:
        """The mean, by the names of the network's own state dict."""
        return self.model.state_dict()

    def restore(self, state: dict[str, Tensor], steps: int) -> None:
        """Go on from what `state` and `steps` were."""
        self.model.load_state_dict(state)
        self.steps = steps


def decay_at(decay: float, steps: int) -> float:
    """d of the step after so many."""
    return min(decay, (1 + steps) / (_HEAD_START + steps))


def decays_at(decays_L: Tensor, steps_L: Tensor) -> Tensor:
    """The same for each of L means; both are float64."""
    return torch.minimum(decays_L, (1 + steps_L) / (_HEAD_START + steps_L))


def _by_name(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, also those that are in no state dict."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
