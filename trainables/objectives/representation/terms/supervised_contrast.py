"""Images of one class told from those of others (supervised contrast: Khosla et al., NeurIPS 2020)."""

# A = vectors, D = numbers in one

from __future__ import annotations

import torch
from torch import Tensor

from trainables.objectives.terms.directions import directions


def supervised_contrast(vectors_AD: Tensor, labels_A: Tensor, *, temperature: float) -> Tensor:
    """Mean over a of -1/|P(a)| Σ_{p in P(a)} log(exp(e_a·e_p / T) / Σ_{b≠a} exp(e_a·e_b / T)).

    e are the directions of the vectors, P(a) the others with a's label. A vector without such partners counts
    as 0. Outside autocast, in log space. It takes memory for several tables of A² numbers: 64 B² for four
    turns of B images by two networks.
    """
    e_AD = directions(vectors_AD, dim=-1)
    with torch.autocast(e_AD.device.type, enabled=False):
        scores_AA = e_AD @ e_AD.T / temperature
    is_self_AA = torch.eye(len(e_AD), dtype=torch.bool, device=e_AD.device)
    others_A1 = scores_AA.masked_fill(is_self_AA, -torch.inf).logsumexp(dim=-1, keepdim=True)
    is_partner_AA = (labels_A[:, None] == labels_A) & ~is_self_AA
    # Selected and not multiplied: of one vector alone the sum over others is log 0, and 0 · inf is no number.
    partners_AA = torch.where(is_partner_AA, scores_AA - others_A1, 0.0)
    return -(partners_AA.sum(dim=-1) / is_partner_AA.sum(dim=-1).clamp(min=1)).mean()
