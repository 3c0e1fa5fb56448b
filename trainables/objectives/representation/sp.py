"""Resemblances between the samples of a batch, held to the teacher's (SP: Tung and Mori, ICCV 2019)."""

# B = samples in the batch, D = numbers in a sample's feature

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from trainables.config.objectives import SpConfig
from trainables.objectives.representation.terms.composition import beside_kd
from trainables.objectives.representation.terms.unit_vectors import unit_or_zero
from trainables.signals import Losses, Objective, Signals, student_feature, teacher_feature
from trainables.tensors import at_least_fp32

_LEAST_SCALE: Final = 1e-6
"""Features whose root mean square is less are divided by this: those that are all 0 stay 0."""


class SpObjective(Objective[SpConfig]):
    """ce_weight · CE + kd_weight · KD + sp_weight · similarity.

    The similarity is eq. 4 of the paper, see `similarity_gap`. The paper takes the last feature map
    (`level: map`); the embedding, which is that map's mean over its places, gives another, usable loss, which
    a cache of embeddings serves (inferred: no paper trains with it). The batch is that of a rank: the loss is
    bounded by 4 / B. Widths of student and teacher may differ. Terms: `ce`, `kd`, `similarity`.
    """

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient.

        Raises:
            ValueError: the signals hold no such feature of student or teacher.
        """
        config = self.config.at(signals.epoch, signals.epochs)
        (student,) = config.student_features
        (teacher,) = config.teacher_features
        given = student_feature(signals, "weak", student)
        taught = teacher_feature(signals, "weak", teacher)
        similarity = similarity_gap(given.flatten(1), taught.flatten(1))
        return beside_kd(signals, config, {"similarity": (config.sp_weight, similarity)})


def similarity_gap(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """(1/B²) || G(student) - G(teacher) ||², G being Q Qᵗ (BxB) with each row of length 1 (SP, eq. 1 to 4).

    It does not change where a network's rows are rotated or all scaled alike; it does where they are shifted.
    A row of zeros resembles nothing and gets no gradient. No gradient reaches the teacher.
    """
    difference_BB = _resemblances(student_BD) - _resemblances(teacher_BD.detach())
    return difference_BB.square().mean()


def _resemblances(rows_BD: Tensor) -> Tensor:
    rows_BD = at_least_fp32(rows_BD)
    # A common factor changes neither value nor gradient; products of small features need it.
    lengths_B: Tensor = torch.linalg.vector_norm(rows_BD.detach(), dim=-1)
    rows_BD = rows_BD / lengths_B.square().mean().sqrt().clamp(min=_LEAST_SCALE)
    # Autocast would take products of matrices in half precision.
    with torch.autocast(rows_BD.device.type, enabled=False):
        return unit_or_zero(rows_BD @ rows_BD.T)
