"""Hints: a feature regressed to the teacher's (FitNets: Romero et al., ICLR 2015, arXiv 1412.6550)."""

# B = samples in the batch, C = channels, H, W = height and width

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from trainables.config.objective_base import EMBEDDING
from trainables.config.representation.maps import FitnetConfig
from trainables.errors import TrialFailed
from trainables.objectives.representation.terms.composition import beside_kd
from trainables.objectives.representation.terms.heads import BatchNorm, head_output
from trainables.objectives.representation.terms.maps import (
    Shape,
    map_shape,
    mean_square,
    vector_width,
)
from trainables.signals import Losses, Setting, Signals, StatefulObjective, student_feature, teacher_feature


class FitnetObjective(StatefulObjective[FitnetConfig]):
    """ce_weight · CE + hint_weight · mean of (r(F_student) - F_teacher)² + kd_weight · T² KL.

    The hint is one stage's map, `stage2` by default, trained together with the rest, as the benchmark of CRD
    (Tian et al., ICLR 2020) has it; r is `map_regressor`. The paper's two steps are `hint_epochs`: the hint
    alone first, then labels and soft targets alone. With `hint: embedding` r is a linear layer between the
    embeddings. Terms: `ce`, `hint`, `kd`.
    """

    def __init__(self, config: FitnetConfig, setting: Setting | None = None) -> None:
        """The regressor, of the setting's shapes.

        Raises:
            TrialFailed: student or teacher has no such feature, or one that is no map; or all epochs are for
                the hint.
        """
        super().__init__(config, setting)
        if config.hint_epochs >= self.setting.epochs:
            raise TrialFailed(
                f"hint_epochs is {config.hint_epochs} and the course has {self.setting.epochs} epochs: the "
                "student would never learn its task; give fewer of them, or more epochs"
            )
        (given,), (taught,) = config.student_features, config.teacher_features
        theirs, ours = self.setting.teacher_shapes, self.setting.student_shapes
        if config.hint == EMBEDDING:
            self.regressor: nn.Module = nn.Linear(
                vector_width(ours, EMBEDDING, whose="student", objective="fitnet"),
                vector_width(theirs, EMBEDDING, whose="teacher", objective="fitnet"),
            )
        else:
            self.regressor = map_regressor(
                map_shape(ours, given, whose="student", objective="fitnet"),
                map_shape(theirs, taught, whose="teacher", objective="fitnet"),
                relu=config.relu,
            )

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient."""
        config = self.config.at(signals.epoch, signals.epochs)
        (given,), (taught,) = config.student_features, config.teacher_features
        regressed = head_output(self.regressor, student_feature(signals, "weak", given))
        hint = mean_square(regressed, teacher_feature(signals, "weak", taught))
        return beside_kd(signals, config, {"hint": (config.hint_weight, hint)})


def map_regressor(student: Shape, teacher: Shape, *, relu: bool) -> nn.Module:
    """A convolution from the student's map to the teacher's shape, batch norm, and a ReLU if asked for.

    Twice the teacher's height and width: 3x3 with stride 2. Half of them: transposed, 4x4 with stride 2. At
    least as large: a convolution without padding, of 1 + the difference, so that of equal maps is 1x1. These
    are the benchmark's. Any other, such as a third of the teacher's: resized bilinearly, then 1x1, which is
    ours. The convolution has no bias, for which batch norm has its own.

    A ReLU cannot reach a target below zero: leave it out where the teacher's maps have a sign.
    """
    (wide, high, across), (out, theirs_high, theirs_across) = student, teacher
    before: list[nn.Module] = []
    if (high, across) == (2 * theirs_high, 2 * theirs_across):
        layer: nn.Module = nn.Conv2d(wide, out, 3, stride=2, padding=1, bias=False)
    elif (2 * high, 2 * across) == (theirs_high, theirs_across):
        layer = nn.ConvTranspose2d(wide, out, 4, stride=2, padding=1, bias=False)
    elif high >= theirs_high and across >= theirs_across:
        layer = nn.Conv2d(wide, out, (1 + high - theirs_high, 1 + across - theirs_across), bias=False)
    else:
        before = [_Resized((theirs_high, theirs_across))]
        layer = nn.Conv2d(wide, out, 1, bias=False)
    after = [nn.ReLU()] if relu else []
    return nn.Sequential(*before, layer, BatchNorm(out), *after)


class _Resized(nn.Module):
    """The map resized bilinearly."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, map_BCHW: Tensor) -> Tensor:
        return F.interpolate(map_BCHW, self.size, mode="bilinear", align_corners=False)
