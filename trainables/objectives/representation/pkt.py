"""Neighbours in a batch, as probable as the teacher has them (PKT: Passalis and Tefas, ECCV 2018)."""

# B = samples in the batch, D = numbers in an embedding

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from trainables.config.objective_base import EMBEDDING
from trainables.config.objectives import PktConfig
from trainables.objectives.representation.terms.composition import beside_kd
from trainables.objectives.representation.terms.unit_vectors import unit_or_zero
from trainables.signals import Losses, Objective, Signals, student_feature, teacher_feature

_EPS: Final = 1e-7


class PktObjective(Objective[PktConfig]):
    """ce_weight · CE + kd_weight · KD + pkt_weight · neighbours.

    The neighbours' divergence is that of `neighbour_divergence`, with the cosine kernel of the paper (eq. 8).
    The batch is that of a rank. Widths of student and teacher may differ. Terms: `ce`, `kd`, `neighbours`.
    """

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient.

        Raises:
            ValueError: the signals hold no embedding of student or teacher.
        """
        config = self.config.at(signals.epoch, signals.epochs)
        given_BD = student_feature(signals, "weak", EMBEDDING)
        taught_BD = teacher_feature(signals, "weak", EMBEDDING)
        neighbours = neighbour_divergence(given_BD, taught_BD)
        return beside_kd(signals, config, {"neighbours": (config.pkt_weight, neighbours)})


def neighbour_divergence(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """(1/B²) Σ_ij p_ij log((p_ij + 1e-7) / (q_ij + 1e-7)), p being the teacher's and q the student's.

    p_ij = c_ij / Σ_j c_ij with c_ij = (cosine(i, j) + 1) / 2, itself included (PKT, eq. 6 to 9; the mean over
    all pairs, where the paper has a sum, is the benchmark's, and its weight of 30000 goes with it). As in the
    released code, 1e-7 is added to the length of each row. A row of zeros is as near to all samples, and gets
    no gradient. Lengths and rotations of the rows change nothing. No gradient reaches the teacher.
    """
    student_BB, teacher_BB = _probabilities(student_BD), _probabilities(teacher_BD.detach())
    log_ratio_BB = (teacher_BB + _EPS).log() - (student_BB + _EPS).log()
    return (teacher_BB * log_ratio_BB).mean()


def _probabilities(rows_BD: Tensor) -> Tensor:
    unit_BD = unit_or_zero(rows_BD, added=_EPS)
    # Autocast would take products of matrices in half precision.
    with torch.autocast(unit_BD.device.type, enabled=False):
        # Rounding takes a cosine of -1 below it, and a probability below 0.
        near_BB = ((unit_BD @ unit_BD.T + 1) / 2).clamp(min=0)
    return near_BB / near_BB.sum(dim=-1, keepdim=True)
