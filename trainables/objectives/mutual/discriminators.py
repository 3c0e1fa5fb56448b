"""What tells maps of mixed images from mixed maps (MixSKD: Yang et al., ECCV 2022, arXiv 2208.05768)."""

# B = samples in the batch, D = channels of a map, h, w = its height and width

from __future__ import annotations

from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.objectives.representation.terms.heads import head_output

_HIDDEN: Final = 128


class Discriminator(nn.Module):
    """A layer of 128 units with ReLU on a map's mean over places, and two logits; outside autocast."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(channels, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 2))

    def forward(self, linear_BDhw: Tensor, mixed_BDhw: Tensor) -> Tensor:
        """Mean binary cross-entropy to (1, 0) for mixed maps and (0, 1) for maps of mixed images."""
        pooled_2BD = torch.cat([linear_BDhw, mixed_BDhw]).mean(dim=(2, 3))
        logits_2B2 = head_output(self.layers, pooled_2BD)
        is_linear_2B = torch.arange(len(logits_2B2), device=logits_2B2.device) < len(linear_BDhw)
        target_2B2 = torch.stack([is_linear_2B, ~is_linear_2B], dim=-1).to(logits_2B2.dtype)
        return F.binary_cross_entropy_with_logits(logits_2B2, target_2B2)


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(_ctx: Any, *gradients: Any) -> Tensor:
        reversed_gradient: Tensor = -gradients[0]
        return reversed_gradient


def reversed_gradient(values: Tensor) -> Tensor:
    """The values, with a gradient of the other sign (Ganin and Lempitsky, ICML 2015)."""
    made: Tensor = _Reversed.apply(values)  # type: ignore[no-untyped-call]
    return made
