"""Embeddings of several networks contrasted within and across them (MCL: Yang et al., AAAI 2022)."""

# B = samples in the batch, D = numbers in a projected embedding, N = training samples,
# M = what a sample is compared with: the embeddings of the batch, or entries of a bank
# K = networks, L = candidates that the batch shares

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.objectives.representation.terms.negatives import Negatives
from trainables.tensors import at_least_fp32

Scores = Sequence[Sequence[Tensor]]
"""[a][b]: BxM, cosines of network a's embeddings with those of network b, divided by tau."""


@dataclass(frozen=True)
class Columns:
    """What the M columns of scores are to each sample."""

    is_positive_BM: Tensor
    """bool; a row without any counts as 0 in the contrast."""
    log_times_BM: Tensor
    """The logarithm of how often a column counts in the contrast's sum over all; see `logarithm`."""
    soft_log_times_BM: Tensor | None
    """The same of the softened scores; None: each column once."""


@dataclass(frozen=True)
class MutualTerms:
    """The four kinds of terms, without their weights."""

    vcl_K: list[Tensor]
    """Of each network: the contrast within it."""
    soft_vcl_K: list[Tensor]
    """Of each network: how far its own scores are from those of the others, summed over these."""
    icl: Tensor
    """Contrasts across networks: the sum over pairs, both ways."""
    soft_icl: Tensor
    """How far these scores are from each other, likewise."""


@dataclass(frozen=True)
class Drawn:
    """Training samples whose entries of a bank a batch is compared with."""

    rows_B: Tensor
    """The batch's own."""
    positive_B: Tensor
    """One of each sample's class."""
    negatives: Negatives
    labels_B: Tensor


def contrast(scores_BM: Tensor, columns: Columns) -> Tensor:
    """-mean_i 1/|P_i| Σ_{j in P_i} (G_ij - log Σ_k times_ik exp G_ik), P_i the positives of row i.

    The mean is over all rows, and one without a positive counts as 0 (inferred: in the paper each has one).
    So a batch weighs as much as it has to tell, and ranks that share it have the mean of the whole together.
    """
    all_B = (scores_BM + columns.log_times_BM).logsumexp(dim=-1)
    count_B = columns.is_positive_BM.sum(dim=-1)
    positive_B = torch.where(columns.is_positive_BM, scores_BM, 0.0).sum(dim=-1) / count_B.clamp(min=1)
    missed_B = torch.where(count_B > 0, all_B - positive_B, 0.0)
    return missed_B.mean()


def soft_gap(
    own_BM: Tensor, other_BM: Tensor, *, temperature: float, log_times_BM: Tensor | None = None
) -> Tensor:
    """T² · mean over rows of KL(softmax(other / T) ‖ softmax(own / T)); no gradient reaches `other`.

    A column that counts several times is that many columns.
    """
    own_BM, other_BM = own_BM / temperature, other_BM.detach() / temperature
    more_BM = 0.0 if log_times_BM is None else log_times_BM
    own_B1, other_B1 = ((each_BM + more_BM).logsumexp(dim=-1, keepdim=True) for each_BM in (own_BM, other_BM))
    share_BM = (other_BM + more_BM - other_B1).exp()  # of a column with its repetitions
    gap_BM = (other_BM - other_B1) - (own_BM - own_B1)
    return temperature**2 * (share_BM * gap_BM).sum(dim=-1).mean()


def mutual_terms(scores: Scores, within: Columns, across: Columns, *, temperature: float) -> MutualTerms:
    """Contrasts and soft gaps within and across networks (section 3, as in the released code).

    The gradient of a network's soft gap within reaches that network alone. What is across two networks
    reaches both, or with entries of a bank the one whose embeddings are compared.
    """

    def gap(own_BM: Tensor, other_BM: Tensor, columns: Columns) -> Tensor:
        return soft_gap(own_BM, other_BM, temperature=temperature, log_times_BM=columns.soft_log_times_BM)

    networks = range(len(scores))
    ways = [(a, b) for a in networks for b in networks if a != b]
    return MutualTerms(
        vcl_K=[contrast(scores[a][a], within) for a in networks],
        soft_vcl_K=[
            torch.stack([gap(scores[a][a], scores[b][b], within) for b in networks if b != a]).sum()
            for a in networks
        ],
        icl=torch.stack([contrast(scores[a][b], across) for a, b in ways]).sum(),
        soft_icl=torch.stack([gap(scores[a][b], scores[b][a], across) for a, b in ways]).sum(),
    )


def batch_columns(labels_B: Tensor, rows_B: Tensor) -> Columns:
    """The other samples of a batch: positives are those of a sample's class; softened, itself counts too.

    What has the same row of the training split is the same sample, shown again as it is, and no other one
    (inferred): its own image would be a positive that asks nothing. An unlabelled sample (label -1) is in no
    contrast, for it may be of any class; softened, it counts.
    """
    is_other_BB = rows_B[:, None] != rows_B
    has_label_B = labels_B >= 0
    is_positive_BB = (labels_B[:, None] == labels_B) & is_other_BB & has_label_B
    return Columns(is_positive_BB, logarithm(is_other_BB & has_label_B), soft_log_times_BM=None)


def batch_scores(units: Sequence[Tensor], *, tau: float) -> Scores:
    """Cosines of all embeddings of a batch, by each network and each other one."""
    networks = range(len(units))
    with torch.autocast(units[0].device.type, enabled=False):  # which would take products in half precision
        scaled = [at_least_fp32(unit_BD) / tau for unit_BD in units]
        upper = {(a, b): scaled[a] @ at_least_fp32(units[b]).T for a in networks for b in networks if a <= b}
    return [[upper[a, b] if a <= b else upper[b, a].T for b in networks] for a in networks]


def bank_columns(drawn: Drawn) -> tuple[Columns, Columns]:
    """(within, across) for the columns of `bank_scores`: across networks a sample's own entry is a positive.

    An unlabelled sample is in no contrast; softened, it counts.
    """
    times_BL = drawn.negatives.times_BL
    once_B1 = torch.ones_like(times_BL[:, :1])
    has_label_B1 = (drawn.labels_B >= 0)[:, None]
    never_BL = torch.zeros_like(times_BL, dtype=torch.bool)
    columns = []
    for own in (False, True):
        own_B1 = torch.full_like(has_label_B1, own)
        times_BM = torch.cat([own_B1.to(times_BL.dtype), once_B1, times_BL], dim=-1)
        is_positive_BM = torch.cat([own_B1 & has_label_B1, has_label_B1, never_BL], dim=-1)
        log_times_BM = logarithm(times_BM)
        columns.append(Columns(is_positive_BM, log_times_BM, soft_log_times_BM=log_times_BM))
    return columns[0], columns[1]


def bank_scores(unit_BD: Tensor, bank_ND: Tensor, drawn: Drawn, *, tau: float) -> Tensor:
    """BxM: a network's embeddings with entries of a bank: their own, one of their class, the candidates.

    No gradient reaches the bank, and it may be renewed before the backward pass.
    """
    rows = (drawn.rows_B, drawn.positive_B, drawn.negatives.rows_L)
    with torch.autocast(unit_BD.device.type, enabled=False):
        scaled_BD = at_least_fp32(unit_BD) / tau
        own_BD, positive_BD, candidates_LD = (
            bank_ND.index_select(0, each).to(scaled_BD.dtype) for each in rows
        )
        paired = [(scaled_BD * each_BD).sum(dim=-1, keepdim=True) for each_BD in (own_BD, positive_BD)]
        return torch.cat([*paired, scaled_BD @ candidates_LD.T], dim=-1)


def logarithm(times_BM: Tensor) -> Tensor:
    """log times, fp32; of 0 the lowest finite number.

    With -inf the sum over a row without columns, as of one sample alone, would have a gradient of NaN.
    """
    return times_BM.float().log().clamp(min=torch.finfo(torch.float32).min)
