"""Knowledge review: deep features fused into shallow ones (Chen et al., CVPR 2021, arXiv 2104.09044)."""

# B = samples in the batch, C = channels, M = channels in between, H, W = height and width

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.config.objective_base import EMBEDDING
from trainables.config.representation.maps import ReviewkdConfig
from trainables.objectives.representation.terms.composition import beside_kd
from trainables.objectives.representation.terms.heads import BatchNorm
from trainables.objectives.representation.terms.maps import (
    Shape,
    map_shape,
    mean_square,
    nearest_to,
    vector_width,
)
from trainables.signals import Losses, Setting, Signals, StatefulObjective, student_feature, teacher_feature
from trainables.tensors import at_least_fp32

MOST_BETWEEN: Final = 512
"""The largest number of channels in between; the deepest feature's own where it has fewer."""
POOLS: Final = (4, 2, 1)
"""Sides of the averages that HCL compares."""


class ReviewkdObjective(StatefulObjective[ReviewkdConfig]):
    """ce_weight · CE + review_weight · sum over levels of H + kd_weight · T² KL(teacher ‖ student).

    Levels are the maps of the stages and the embedding as a 1x1 map; `Review` makes of the student's what H
    (`hierarchical_distance`) compares with the teacher's. All that the teacher says is times
    min(1, epoch / warmup_epochs). The teacher's maps are those before a stage's last
    activation by default, as in the authors' code for CIFAR; their code for ImageNet has no warm-up.
    Terms: `ce`, `review`, `kd`.
    """

    def __init__(self, config: ReviewkdConfig, setting: Setting | None = None) -> None:
        """The modules of all levels, of the setting's shapes.

        Raises:
            TrialFailed: student or teacher has too few stages for these levels, or no maps.
        """
        super().__init__(config, setting)
        ours, theirs = self.setting.student_shapes, self.setting.teacher_shapes
        self.review = Review(
            [_level_shape(ours, name, "student") for name in config.student_features],
            [_level_shape(theirs, name, "teacher") for name in config.teacher_features],
        )

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient."""
        config = self.config.at(signals.epoch, signals.epochs)
        given = [_as_map(student_feature(signals, "weak", name)) for name in config.student_features]
        taught = [_as_map(teacher_feature(signals, "weak", name)) for name in config.teacher_features]
        levels = [hierarchical_distance(o, t) for o, t in zip(self.review(given), taught, strict=True)]
        review = torch.stack(levels).sum()
        return beside_kd(signals, config, {"review": (config.review_weight, review)})


class Review(nn.Module):
    """The student's levels, shallowest first, as maps of the teacher's shapes (the paper's ABF modules).

    From the deepest, L, to the shallowest, with x_l the student's map:
    u_l = BN(Conv1x1(x_l)), of M channels; r_L = u_L; below it, with r' = r_{l+1} resized to u_l's size,
    [g1, g2] = sigmoid(Conv1x1([u_l ; r'])), two numbers a position, and r_l = g1 · u_l + g2 · r';
    o_l = BN(Conv3x3(r_l)), of the teacher's channels, r_l resized to the teacher's size where it differs.
    Resizing takes the nearest; M = min(512, channels of the deepest).
    """

    def __init__(self, student: Sequence[Shape], teacher: Sequence[Shape]) -> None:
        super().__init__()
        between = min(MOST_BETWEEN, student[-1][0])
        self.sizes = [(high, across) for _, high, across in teacher]
        self.narrowed = nn.ModuleList(_convolved(channels, between, 1) for channels, _, _ in student)
        self.gates = nn.ModuleList(nn.Conv2d(2 * between, 2, 1) for _ in student[:-1])
        self.widened = nn.ModuleList(_convolved(between, channels, 3) for channels, _, _ in teacher)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """A map for each level, shallowest first, in the precision of the weights, outside autocast."""
        dtype = next(self.parameters()).dtype
        with torch.autocast(maps[0].device.type, enabled=False):
            reviewed = self._reviewed([map_BCHW.to(dtype) for map_BCHW in maps])
            return [
                widen(nearest_to(r_BMHW, size))
                for widen, r_BMHW, size in zip(self.widened, reviewed, self.sizes, strict=True)
            ]

    def _reviewed(self, maps: Sequence[Tensor]) -> list[Tensor]:
        narrowed = [narrow(map_BCHW) for narrow, map_BCHW in zip(self.narrowed, maps, strict=True)]
        reviewed = [narrowed[-1]]
        for u_BMHW, gate in zip(narrowed[-2::-1], reversed(self.gates), strict=True):
            deeper_BMHW = nearest_to(reviewed[-1], (u_BMHW.shape[-2], u_BMHW.shape[-1]))
            gates_B2HW = gate(torch.cat([u_BMHW, deeper_BMHW], dim=1)).sigmoid()
            reviewed.append(gates_B2HW[:, :1] * u_BMHW + gates_B2HW[:, 1:] * deeper_BMHW)
        return reviewed[::-1]


def hierarchical_distance(student_BCHW: Tensor, teacher_BCHW: Tensor) -> Tensor:
    """H = (MSE of the maps + Σ_k w_k · MSE of their averages of k x k) / (1 + Σ_k w_k) (the paper's HCL).

    k is of 4, 2, 1, those below height and width; w is 1/2 for the first of them, and half as much for each
    further one.

    Raises:
        ValueError: the maps differ in shape.
    """
    total, weights, weight = mean_square(student_BCHW, teacher_BCHW), 1.0, 1.0
    student_BCHW, teacher_BCHW = at_least_fp32(student_BCHW), at_least_fp32(teacher_BCHW.detach())
    for side in POOLS:
        if side >= min(student_BCHW.shape[-2:]):
            continue
        weight /= 2
        averages = (F.adaptive_avg_pool2d(part, side) for part in (student_BCHW, teacher_BCHW))
        total = total + weight * mean_square(*averages)
        weights += weight
    return total / weights


def _level_shape(shapes: Mapping[str, tuple[int, ...]], name: str, whose: str) -> Shape:
    if name == EMBEDDING:
        return vector_width(shapes, name, whose=whose, objective="reviewkd"), 1, 1
    return map_shape(shapes, name, whose=whose, objective="reviewkd")


def _as_map(feature: Tensor) -> Tensor:
    """BxD as BxDx1x1; maps as they are."""
    return feature[:, :, None, None] if feature.ndim == 2 else feature


def _convolved(channels: int, out: int, side: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, out, side, padding=side // 2, bias=False), BatchNorm(out))
