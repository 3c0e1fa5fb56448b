"""Noise-contrastive estimation over banks (CRD: Tian et al., ICLR 2020, arXiv 1910.10699)."""

# B = samples in the batch, N = training samples, L = candidates that the batch shares,
# D = numbers in an entry of a bank

from __future__ import annotations

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.objectives.terms.directions import directions
from trainables.tensors import at_least_fp32

_EPS: Final = 1e-7
_LINEAR_FROM: Final = 40.0
"""softplus(x) is x from there on: what is left out is below the last digit of float64."""


def log_scores(
    unit_BD: Tensor, positive_BD: Tensor, candidates_LD: Tensor, *, tau: float, log_z: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(B of the positives, BxL of the candidates): <entry, embedding> / tau - log Z.

    The exponentials of these are the paper's scores; without `log_z`, those with a Z of 1. The entries get
    no gradient.
    """
    with torch.autocast(unit_BD.device.type, enabled=False):  # which would take products in half precision
        scaled_BD = at_least_fp32(unit_BD) / tau
        shift = scaled_BD.new_zeros(()) if log_z is None else -log_z.to(scaled_BD.dtype)
        positive_B = (scaled_BD * positive_BD.detach().to(scaled_BD.dtype)).sum(dim=-1) + shift
        # One pass over BxL instead of three: the temperature is in the embeddings, the shift in the product.
        candidates_BL = torch.addmm(shift, scaled_BD, candidates_LD.detach().to(scaled_BD.dtype).T)
    return positive_B, candidates_BL


def log_constant(
    positive_B: Tensor, candidates_BL: Tensor, times_BL: Tensor, *, negatives: int, n_samples: int
) -> Tensor:
    """log Z: of the mean of exp(score) over positives and drawn negatives, times N; without gradient.

    `times_BL` says how often a candidate was drawn for a sample; a row sums to `negatives`.
    """
    drawn_BL = candidates_BL.detach() + times_BL.to(candidates_BL.dtype).log()  # -inf where it was not drawn
    total = torch.cat([positive_B.detach(), drawn_BL.flatten()]).logsumexp(dim=0)
    return total + math.log(n_samples) - math.log(len(positive_B) * (1 + negatives))


def contrast(
    positive_B: Tensor, candidates_BL: Tensor, times_BL: Tensor, *, negatives: int, n_samples: int
) -> Tensor:
    """-mean over samples of [log(o_0 / (o_0 + q + eps)) + Σ_k log(q / (o_k + q + eps))] with k the negatives.

    The scores are log o, with Z taken off; q = negatives / N is the density of uniform noise, eps 1e-7
    (Tian et al., section 3, as in the released code). In log space: with c = log(q + eps) the sum is
    softplus(c - log o_0) + Σ_k softplus(log o_k - c) + K (c - log q). At scores of 1/N each it is
    log(1 + K) + K log(1 + 1/K), so it grows with K and is not 0 where student and teacher are equal.
    """
    noise = math.log(negatives / n_samples + _EPS)
    offset = negatives * (noise - math.log(negatives / n_samples))
    missed_B = F.softplus(noise - positive_B, threshold=_LINEAR_FROM)
    mistaken_BL = F.softplus(candidates_BL - noise, threshold=_LINEAR_FROM)
    return missed_B.mean() + (mistaken_BL * times_BL).sum() / len(positive_B) + offset


@torch.no_grad()
def enter(bank_ND: Tensor, rows_B: Tensor, unit_BD: Tensor, *, momentum: float) -> None:
    """Renew a bank's entries in place: the direction of momentum · entry + (1 - momentum) · embedding.

    Where a row comes several times, its last embedding in the batch counts, whatever the device: the entry
    read is the one of before the step for each of them.
    """
    own_B = torch.arange(len(rows_B), device=rows_B.device)
    last_B = torch.where(rows_B[:, None] == rows_B, own_B, -1).amax(dim=-1)
    mixed_BD = momentum * bank_ND[rows_B] + (1 - momentum) * unit_BD[last_B].to(bank_ND.dtype)
    bank_ND[rows_B] = directions(mixed_BD, dim=-1)
