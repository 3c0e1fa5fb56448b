"""A student that fails on one rank of a team alone; named as a factory, and run inside slots."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor, nn


class OneSided(nn.Module):
    """A linear student that raises in training on rank 1, while rank 0 waits for its gradients."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, n_classes))

    def forward(self, images: Tensor) -> Tensor:
        if self.training and dist.is_initialized() and dist.get_rank() == 1:
            raise ValueError("rank 1 has had enough")
        logits: Tensor = self.body(images)
        return logits


def one_sided(n_classes: int) -> nn.Module:
    return OneSided(n_classes)
