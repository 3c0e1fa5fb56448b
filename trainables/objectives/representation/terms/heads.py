"""Layers that stand beside a student while it is trained: they work on one sample too, and in fp32."""

# B = samples in the batch, D = numbers in an embedding, H, W = height and width of a map

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.config.objective_base import EMBEDDING
from trainables.errors import TrialFailed


class BatchNorm(nn.Module):
    """Batch normalisation over a batch's embeddings BxD, or over the positions of its maps BxDxHxW.

    In training a channel with a single value has no variance; it is normalised by the running figures then.
    """

    def __init__(self, width: int, *, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, values: Tensor) -> Tensor:
        """The values of each channel (the second dimension) at mean 0 and deviation 1, then scaled."""
        several = values.numel() > values.shape[1]
        return F.batch_norm(
            values,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=self.training and several,
            momentum=self.momentum,
            eps=self.eps,
        )


def head_output(head: nn.Module, feature: Tensor) -> Tensor:
    """What a head makes of a feature: outside autocast, in the precision of the head's parameters.

    A head without parameters leaves the precision as it is.
    """
    dtype = next((parameter.dtype for parameter in head.parameters()), feature.dtype)
    with torch.autocast(feature.device.type, enabled=False):
        output: Tensor = head(feature.to(dtype))
    return output


def width_of(shapes: Mapping[str, tuple[int, ...]], whose: str, name: str = EMBEDDING) -> int:
    """Numbers in the embedding, or channels of the map, of that name.

    Raises:
        ValueError: the setting does not say.
        TrialFailed: a sample's embedding is several vectors.
    """
    if name not in shapes:
        raise ValueError(f"the setting has no shape of {whose}'s feature {name!r}; give it those asked for")
    shape = shapes[name]
    if name == EMBEDDING and len(shape) > 1:
        raise TrialFailed(
            f"{whose}'s embedding has the shape {shape} for a sample, where one vector is compared; take a "
            "network whose last linear layer is given one vector, pooled before it"
        )
    return shape[0]
