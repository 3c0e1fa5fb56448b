"""Noise-contrastive estimation over banks (CRD: Tian et al., ICLR 2020, arXiv 1910.10699)."""

# B = samples in the batch, N = training samples, L = candidates that the batch shares,
# D = numbers in an entry of a bank

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from trainables.objectives.terms.directions import directions
from trainables.objectives.terms.row_tables import write_last
from trainables.tensors import at_least_fp32

_EPS: Final = 1e-7
_LINEAR_FROM: Final = 40.0
"""softplus(x) is x from there on: what is left out is below the last digit of float64."""


@dataclass(frozen=True)
class Entries:
    """Entries of a bank that a batch's embeddings are scored against; they get no gradient."""

    positive_BD: Tensor
    candidates_LD: Tensor
    times_BL: Tensor
    """How often a candidate was drawn as a negative of a sample; a row sums to K."""


@dataclass(frozen=True)
class Counts:
    """Of how many samples the negatives are drawn, and how many for each."""

    negatives: int
    """K."""
    n_samples: int
    """N."""

    @property
    def log_density(self) -> float:
        """log q, of uniform noise: q = K / N."""
        return math.log(self.negatives / self.n_samples)


def log_constant(unit_BD: Tensor, entries: Entries, *, tau: float, counts: Counts) -> Tensor:
    """log Z: of the mean of exp(<entry, embedding> / tau) over positives and drawn negatives, times N.

    Without gradient.
    """
    with torch.no_grad(), torch.autocast(unit_BD.device.type, enabled=False):
        scaled_BD = at_least_fp32(unit_BD) / tau
        positive_B = (scaled_BD * entries.positive_BD.to(scaled_BD.dtype)).sum(dim=-1)
        candidates_BL = scaled_BD @ entries.candidates_LD.to(scaled_BD.dtype).T
        drawn_BL = candidates_BL + entries.times_BL.to(scaled_BD.dtype).log()  # -inf where it was not drawn
        total = torch.cat([positive_B, drawn_BL.flatten()]).logsumexp(dim=0)
    return total + math.log(counts.n_samples) - math.log(len(unit_BD) * (1 + counts.negatives))


def contrast(unit_BD: Tensor, entries: Entries, *, tau: float, log_z: Tensor, counts: Counts) -> Tensor:
    """-mean over samples of [log(o_0 / (o_0 + q + eps)) + Σ_k log(q / (o_k + q + eps))] with k the negatives.

    The scores are o = exp(<entry, embedding> / tau) / Z; q = K / N is the density of uniform noise, eps 1e-7
    (Tian et al., section 3, as in the released code). In log space: with c = log(q + eps) the sum is
    softplus(c - log o_0) + Σ_k softplus(log o_k - c) + K (c - log q). At scores of 1/N each it is
    log(1 + K) + K log(1 + 1/K), so it grows with K and is not 0 where student and teacher are equal.
    """
    noise = math.log(counts.negatives / counts.n_samples + _EPS)
    offset = counts.negatives * (noise - counts.log_density)
    with torch.autocast(unit_BD.device.type, enabled=False):  # which would take products in half precision
        scaled_BD = at_least_fp32(unit_BD) / tau
        shift = -log_z.to(scaled_BD.dtype) - noise
        positive_B = (scaled_BD * entries.positive_BD.detach().to(scaled_BD.dtype)).sum(dim=-1) + shift
        missed_B = F.softplus(-positive_B, threshold=_LINEAR_FROM)
        mistaken: Tensor = _Mistaken.apply(  # type: ignore[no-untyped-call]
            scaled_BD, entries.candidates_LD.to(scaled_BD.dtype), entries.times_BL.to(scaled_BD.dtype), shift
        )
    return missed_B.mean() + mistaken / len(unit_BD) + offset


class _Mistaken(torch.autograd.Function):
    """Σ over samples b and candidates l of times_bl · softplus(<l, b> + shift).

    The gradient is computed beside the value: nothing of BxL is kept for the backward pass, and there are two
    thirds of the passes over it.
    """

    @staticmethod
    def forward(
        ctx: Any, scaled_BD: Tensor, candidates_LD: Tensor, times_BL: Tensor, shift: Tensor
    ) -> Tensor:
        scores_BL = torch.addmm(shift, scaled_BD, candidates_LD.T)
        total = F.softplus(scores_BL, threshold=_LINEAR_FROM).mul_(times_BL).sum()
        ctx.save_for_backward(scores_BL.sigmoid_().mul_(times_BL) @ candidates_LD)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        (slope_BD,) = ctx.saved_tensors
        return gradients[0] * slope_BD, None, None, None


@torch.no_grad()
def enter(bank_ND: Tensor, rows_B: Tensor, unit_BD: Tensor, *, momentum: float) -> None:
    """Renew a bank's entries in place: the direction of momentum · entry + (1 - momentum) · embedding.

    Where a row comes several times, its last embedding in the batch counts: the entry read is the one of
    before the step for each of them.
    """
    mixed_BD = momentum * bank_ND[rows_B] + (1 - momentum) * unit_BD.to(bank_ND.dtype)
    write_last(bank_ND, rows_B, directions(mixed_BD, dim=-1))
