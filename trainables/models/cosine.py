"""A classifier by cosines on a projection (CBD: Iscen et al., BMVC 2021, arXiv 2104.05279)."""

# B = samples, D = numbers in an embedding, C = classes

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.errors import ConfigError

SCALE: Final = 20.0
"""Fixed by the paper: cosines alone, in [-1, 1], would make a softmax that is never sure."""


class CosineClassifier(nn.Module):
    """20 times the cosine between an embedding and the vector of each class; no bias."""

    def __init__(self, in_features: int, n_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_classes, in_features))
        nn.init.normal_(self.weight, std=0.01)

    def forward(self, embedding_BD: Tensor) -> Tensor:
        """Logits BxC; an embedding of zeros gives zeros."""
        return SCALE * F.linear(F.normalize(embedding_BD, dim=-1), F.normalize(self.weight, dim=-1))

    def extra_repr(self) -> str:
        """For the printed network."""
        n_classes, in_features = self.weight.shape
        return f"{in_features}, {n_classes}"


def with_cosine_head(network: nn.Module, units: int, n_classes: int) -> nn.Module:
    """The network with its linear classifier replaced by `units` with ReLU and a cosine classifier.

    Raises:
        ConfigError: the network has no linear layer with one output per class.
    """
    found = [
        (name, layer)
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear) and layer.out_features == n_classes and name
    ]
    if not found:
        raise ConfigError(
            f"`cosine_head` replaces the linear layer with {n_classes} outputs, and "
            f"{type(network).__name__} has none; choose another network"
        )
    name, layer = found[-1]
    head = nn.Sequential(nn.Linear(layer.in_features, units), nn.ReLU(), CosineClassifier(units, n_classes))
    network.set_submodule(name, head)
    return network
