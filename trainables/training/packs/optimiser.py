"""The optimisers of all lanes as one: the formulas of torch.optim, with numbers of each lane's own."""

# L = lanes, P = numbers in the parameters of one network

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from trainables.config import OptimizerName, TrainingConfig
from trainables.training.optimisers import build_optimizer, restore_optimizer
from trainables.training.packs.weights import LaneWeights

_BETAS: Final = (0.9, 0.999)
_EPS: Final = 1e-8
"""Of torch.optim.AdamW, which the loop leaves at their defaults."""
_CLIP_EPS: Final = 1e-6
"""As in torch.nn.utils.clip_grad_norm_."""

_MOMENTUM: Final = "momentum_buffer"
_MEAN: Final = "exp_avg"
_SQUARE: Final = "exp_avg_sq"


class LaneOptimisers:
    """SGD, or AdamW, of every lane: rate, momentum, decay and largest norm are each lane's own.

    Which of the two it is, whether SGD is Nesterov's, and whether gradients are clipped at all, is the same
    for all lanes.
    """

    def __init__(self, recipe: TrainingConfig, weights: LaneWeights) -> None:
        """No lane yet; `recipe` is that of one of them."""
        self._adam = recipe.optimizer is OptimizerName.ADAMW
        self._nesterov, self._clips = recipe.nesterov, recipe.clip_norm is not None
        self._weights = weights
        self._recipes: list[TrainingConfig] = []
        names = (_MEAN, _SQUARE) if self._adam else (_MOMENTUM,)
        self._kept = {name: torch.empty_like(weights.values_LP) for name in names}
        self._steps_L1 = torch.empty(0, 1, device=weights.values_LP.device)
        self._numbers_L1: dict[str, Tensor] = {}

    @property
    def tensors(self) -> list[Tensor]:
        """All that `step` changes beside the weights."""
        return [*self._kept.values(), self._steps_L1]

    def append(self, recipe: TrainingConfig) -> None:
        """A lane more, which has gathered nothing yet."""
        self._recipes.append(recipe)
        self._steps_L1 = torch.cat([self._steps_L1, self._steps_L1.new_zeros(1, 1)])
        self._kept = {
            name: torch.cat([rows, rows.new_zeros(1, rows.shape[1])]) for name, rows in self._kept.items()
        }
        self._number()

    def keep(self, lanes: Sequence[int]) -> None:
        """Leave these lanes alone, in this order."""
        self._recipes = [self._recipes[lane] for lane in lanes]
        self._steps_L1 = self._steps_L1[list(lanes)]
        self._kept = {name: rows[list(lanes)] for name, rows in self._kept.items()}
        self._number()

    @torch.no_grad()
    def step(self, gradient_LP: Tensor, rates_L: Tensor) -> Tensor | None:
        """A step of every lane along its gradient, which is used up; all is changed in place.

        Gives the gradients' norms (L) where they are clipped.
        """
        norm_L = self._clip(gradient_LP) if self._clips else None
        self._steps_L1.add_(1)
        values_LP = self._weights.values_LP
        if self._adam:
            self._adam_step(values_LP, gradient_LP, rates_L[:, None])
        else:
            self._sgd_step(values_LP, gradient_LP, rates_L[:, None])
        return norm_L

    def state(self, lane: int, parameters: Sequence[Tensor]) -> dict[str, Any]:
        """What the lane's own optimiser would give as its state, in tensors of their own."""
        alone = build_optimizer([{"params": list(parameters)}], self._recipes[lane])
        document = alone.state_dict()
        taken = float(self._steps_L1[lane])
        if taken == 0 or not self._has_state(lane):
            return document
        cut = {name: self._weights.by_parameter(rows[lane]) for name, rows in self._kept.items()}
        steps = {"step": torch.tensor(taken)} if self._adam else {}
        document["state"] = {
            number: {**steps, **{name: parts[number].clone() for name, parts in cut.items()}}
            for number in range(len(parameters))
        }
        return document

    def restore(self, lane: int, state: dict[str, Any], parameters: Sequence[Tensor]) -> None:
        """Take over what an optimiser of one network has gathered; see `restore_optimizer`."""
        alone = build_optimizer([{"params": list(parameters)}], self._recipes[lane])
        restore_optimizer(alone, state)
        gathered = [alone.state.get(parameter, {}) for parameter in parameters]
        for name, rows in self._kept.items():
            parts = [own.get(name) for own in gathered]
            zeros = [torch.zeros_like(parameter) for parameter in parameters]
            filled = [zero if part is None else part for part, zero in zip(parts, zeros, strict=True)]
            rows[lane] = self._weights.row(filled)
        # SGD counts no steps: what it has gathered shows that there were some.
        self._steps_L1[lane] = int(gathered[0].get("step", 1)) if gathered[0] else 0

    def _has_state(self, lane: int) -> bool:
        return self._adam or self._recipes[lane].momentum > 0

    def _number(self) -> None:
        def column(name: str) -> Tensor:
            numbers = [float(getattr(recipe, name) or 0.0) for recipe in self._recipes]
            return torch.tensor(numbers, device=self._weights.values_LP.device)[:, None]

        self._numbers_L1 = {name: column(name) for name in ("momentum", "weight_decay", "clip_norm")}

    def _clip(self, gradient_LP: Tensor) -> Tensor:
        """Scales each lane's gradient down to its largest norm, as torch.nn.utils.clip_grad_norm_ does."""
        norm_L1: Tensor = torch.linalg.vector_norm(gradient_LP, dim=1, keepdim=True)
        gradient_LP.mul_((self._numbers_L1["clip_norm"] / (norm_L1 + _CLIP_EPS)).clamp(max=1.0))
        return norm_L1[:, 0]

    def _sgd_step(self, values_LP: Tensor, gradient_LP: Tensor, rates_L1: Tensor) -> None:
        momentum_L1, velocity_LP = self._numbers_L1["momentum"], self._kept[_MOMENTUM]
        gradient_LP.addcmul_(values_LP, self._numbers_L1["weight_decay"])
        # From zeros, the first step leaves the gradient itself there, as torch's does.
        velocity_LP.mul_(momentum_L1).add_(gradient_LP)
        along_LP = gradient_LP.addcmul_(velocity_LP, momentum_L1) if self._nesterov else velocity_LP
        values_LP.addcmul_(along_LP, rates_L1, value=-1)

    def _adam_step(self, values_LP: Tensor, gradient_LP: Tensor, rates_L1: Tensor) -> None:
        mean_LP, square_LP, steps_L1 = self._kept[_MEAN], self._kept[_SQUARE], self._steps_L1
        values_LP.mul_(1 - rates_L1 * self._numbers_L1["weight_decay"])
        mean_LP.lerp_(gradient_LP, 1 - _BETAS[0])
        square_LP.mul_(_BETAS[1]).addcmul_(gradient_LP, gradient_LP, value=1 - _BETAS[1])
        step_size_L1 = rates_L1 / (1 - _BETAS[0] ** steps_L1)
        spread_LP = (square_LP.sqrt() / (1 - _BETAS[1] ** steps_L1).sqrt()).add_(_EPS)
        values_LP.sub_(step_size_L1 * (mean_LP / spread_LP))
