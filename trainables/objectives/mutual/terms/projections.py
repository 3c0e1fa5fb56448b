"""What networks' embeddings are projected by before they are contrasted, and banks of what came out."""

# B = samples in the batch, D = numbers in a projected embedding, N = training samples

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainables.objectives.representation.terms.heads import head_output
from trainables.objectives.representation.terms.noise_contrast import enter
from trainables.objectives.terms.directions import directions


class Projections(nn.Module):
    """For each network two layers, width -> dim -> dim with a ReLU between them, and perhaps a bank.

    What comes out has length 1. A bank keeps one such embedding for each training sample, in fp32.
    """

    def __init__(self, widths: Sequence[int], dim: int, *, n_samples: int = 0) -> None:
        """`widths` are those of the networks' embeddings; without `n_samples` there are no banks."""
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(width, dim), nn.ReLU(), nn.Linear(dim, dim)) for width in widths
        )
        self.bank_names = tuple(f"bank{number}_ND" for number in range(len(widths)) if n_samples)
        bound = 1 / math.sqrt(dim / 3)
        for name in self.bank_names:
            self.register_buffer(name, torch.empty(n_samples, dim).uniform_(-bound, bound))

    @property
    def banks(self) -> list[Tensor]:
        """NxD, one for each network."""
        return [self.get_buffer(name) for name in self.bank_names]

    def forward(self, embeddings: Sequence[Tensor]) -> list[Tensor]:
        """BxD of each network, of length 1, at least in fp32 and outside autocast."""
        pairs = zip(self.heads, embeddings, strict=True)
        return [directions(head_output(head, embedding), dim=-1) for head, embedding in pairs]

    def enter(self, rows_B: Tensor, units: Sequence[Tensor], *, momentum: float) -> None:
        """Renew the banks' entries of these samples by their embeddings."""
        for bank_ND, unit_BD in zip(self.banks, units, strict=True):
            enter(bank_ND, rows_B, unit_BD, momentum=momentum)
