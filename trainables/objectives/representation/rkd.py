"""Distances and angles between the embeddings of a batch (RKD: Park et al., CVPR 2019, arXiv 1904.05068)."""

# A = anchors at once, B = samples in the batch, D = numbers in an embedding

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.config.objective_base import EMBEDDING
from trainables.config.objectives import RkdConfig
from trainables.objectives.representation.terms.composition import beside_kd
from trainables.signals import Losses, Objective, Signals, student_feature, teacher_feature
from trainables.tensors import at_least_fp32

_LEAST_DISTANCE: Final = 1e-6
"""Rows that coincide are so far apart, without gradient."""
_LEAST_SHARE: Final = 1e-4
"""Of the mean distance: an angle with a shorter side is left out, for its gradient would be as large as
that side is short, and its direction noise."""
MOST_NUMBERS: Final = 2**22
"""Of one tensor of the angles, AxBxB or AxBxD: that many are held at a time."""


class RkdObjective(Objective[RkdConfig]):
    """ce_weight · CE + kd_weight · KD + distance_weight · distance + angle_weight · angle.

    See `distance_gap` and `angle_gap`; the weights are the CRD benchmark's. The batch is that of a rank.
    Widths of student and teacher may differ. Where the angle's weight is 0 its term is 0 and not computed: it
    costs B³. Terms: `ce`, `kd`, `distance`, `angle`.
    """

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient.

        Raises:
            ValueError: the signals hold no embedding of student or teacher.
        """
        config = self.config.at(signals.epoch, signals.epochs)
        given_BD = student_feature(signals, "weak", EMBEDDING)
        taught_BD = teacher_feature(signals, "weak", EMBEDDING)
        distance = distance_gap(given_BD, taught_BD)
        angle = angle_gap(given_BD, taught_BD) if config.angle_weight > 0 else torch.zeros_like(distance)
        own = {"distance": (config.distance_weight, distance), "angle": (config.angle_weight, angle)}
        return beside_kd(signals, config, own)


def distance_gap(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Mean over all B² pairs of the smooth L1 (delta 1) of distances over their network's mean (eq. 3-5).

    The mean distance is that of the pairs of two samples, and the student's has its gradient. Rows that
    coincide are 1e-6 apart and have none. Rotation, a common scale and a shift of a network's rows change
    nothing. No gradient reaches the teacher.
    """
    student_BB, teacher_BB = _distances(student_BD), _distances(teacher_BD.detach())
    return F.smooth_l1_loss(_over_mean(student_BB), _over_mean(teacher_BB))


def angle_gap(student_BD: Tensor, teacher_BD: Tensor, *, most_numbers: int = MOST_NUMBERS) -> Tensor:
    """Mean over all B³ triplets of the smooth L1 (delta 1) of cos(h_j - h_i, h_k - h_i) (eq. 6-8).

    Triplets with a side shorter than 1e-4 of its network's mean distance, or than 1e-6, in either network
    count as 0: so do those that name a sample twice. Anchors i are taken so many at a time that no tensor
    holds more than `most_numbers`, or than one anchor has; the gradient is computed with the value, so that
    nothing is kept for the backward pass but BxD. Rotation, a common scale and a shift of a network's rows
    change nothing. No gradient reaches the teacher.
    """
    student_BD, teacher_BD = at_least_fp32(student_BD), at_least_fp32(teacher_BD.detach())
    count = len(student_BD)
    widest = max(count, student_BD.shape[-1], teacher_BD.shape[-1])
    at_once = max(1, most_numbers // (count * widest))
    # Autocast would take products of matrices in half precision.
    with torch.no_grad(), torch.autocast(student_BD.device.type, enabled=False):
        valid_BB = _long_enough(student_BD) & _long_enough(teacher_BD)
        value, gradient_BD = student_BD.new_zeros(()), torch.zeros_like(student_BD)
        for first in range(0, count, at_once):
            anchors = slice(first, first + at_once)
            value += _add_angles(student_BD, teacher_BD, valid_BB, anchors, gradient_BD)
    # The difference is 0, and has the gradient that was computed.
    return (value + ((student_BD - student_BD.detach()) * gradient_BD).sum()) / count**3


def _add_angles(
    student_BD: Tensor, teacher_BD: Tensor, valid_BB: Tensor, anchors: slice, gradient_BD: Tensor
) -> Tensor:
    """The sum over the triplets of some anchors; its gradient is added to `gradient_BD`."""
    unit_ABD, inverse_AB1 = _sides(student_BD, valid_BB, anchors)
    taught_ABD, _ = _sides(teacher_BD, valid_BB, anchors)
    gap_ABB = unit_ABD @ unit_ABD.transpose(1, 2) - taught_ABD @ taught_ABD.transpose(1, 2)
    slope_ABB = gap_ABB.clamp(-1, 1)  # the derivative of smooth L1
    # A triplet's cosine has two sides, and each pair of sides has two triplets: hence the 2.
    by_unit_ABD = 2 * (slope_ABB @ unit_ABD)
    along_AB1 = (by_unit_ABD * unit_ABD).sum(dim=-1, keepdim=True)
    by_side_ABD = (by_unit_ABD - along_AB1 * unit_ABD) * inverse_AB1
    gradient_BD += by_side_ABD.sum(dim=0)
    gradient_BD[anchors] -= by_side_ABD.sum(dim=1)
    return (slope_ABB * (gap_ABB - slope_ABB / 2)).sum()


def _sides(rows_BD: Tensor, valid_BB: Tensor, anchors: slice) -> tuple[Tensor, Tensor]:
    """From each anchor the directions to all samples and 1 / their distance, both 0 of those left out."""
    side_ABD = rows_BD[None, :, :] - rows_BD[anchors, None, :]
    length_AB1: Tensor = torch.linalg.vector_norm(side_ABD, dim=-1, keepdim=True)
    inverse_AB1 = length_AB1.masked_fill(~valid_BB[anchors, :, None], torch.inf).reciprocal()
    return side_ABD * inverse_AB1, inverse_AB1


def _long_enough(rows_BD: Tensor) -> Tensor:
    distance_BB = _distances(rows_BD)
    return distance_BB > (_LEAST_SHARE * _mean_of_pairs(distance_BB)).clamp(min=_LEAST_DISTANCE)


def _distances(rows_BD: Tensor) -> Tensor:
    """BxB, 0 on the diagonal, elsewhere at least 1e-6."""
    rows_BD = at_least_fp32(rows_BD)
    # Not from products of rows: of rows far from 0 the difference of squares leaves few digits. Here, too,
    # the gradient of a distance of 0 is 0.
    with torch.autocast(rows_BD.device.type, enabled=False):
        distance_BB = torch.cdist(rows_BD, rows_BD, compute_mode="donot_use_mm_for_euclid_dist")
    own_BB = torch.eye(len(rows_BD), dtype=torch.bool, device=rows_BD.device)
    return distance_BB.clamp(min=_LEAST_DISTANCE).masked_fill(own_BB, 0.0)


def _mean_of_pairs(distance_BB: Tensor) -> Tensor:
    count = len(distance_BB)
    return distance_BB.sum() / max(1, count * (count - 1))  # one sample has no pair: 0, not 0 / 0


def _over_mean(distance_BB: Tensor) -> Tensor:
    return distance_BB / _mean_of_pairs(distance_BB).clamp(min=_LEAST_DISTANCE)
