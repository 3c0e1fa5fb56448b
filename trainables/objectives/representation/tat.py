"""The target-aware transformer, on whole maps (TaT: Lin et al., CVPR 2022, arXiv 2205.10793)."""

# B = samples in the batch, C = channels, H, W = height and width

from __future__ import annotations

from torch import nn

from trainables.config.representation.bases import LAST_MAP
from trainables.config.representation.maps import TatConfig, Theta, UnequalMaps
from trainables.errors import TrialFailed
from trainables.objectives.representation.terms.composition import beside_kd
from trainables.objectives.representation.terms.heads import BatchNorm, head_output
from trainables.objectives.representation.terms.maps import map_shape, pooled_to
from trainables.objectives.representation.terms.target_aware import whole_map_loss
from trainables.signals import Losses, Setting, Signals, StatefulObjective, student_feature, teacher_feature


class TatObjective(StatefulObjective[TatConfig]):
    """ce_weight · CE + kd_weight · T² KL + tat_weight · L_TaT (the paper's alpha, beta, epsilon).

    L_TaT = mean over B, C, H, W of (f' - F_teacher)², f' = A phi(F_student), where A is the softmax of the
    inner products of gamma(F_student) and theta(F_teacher) over one map's positions; see
    `terms.target_aware.rebuilt` for the two orientations. Text and released code of the paper differ in it;
    that the code's, `student_row`, gave the published numbers is inferred. The mean is the code's, where the
    text has a norm. gamma and phi are 3x3 convolutions to the teacher's channels, with batch norm; theta is
    the identity, or such a convolution too, which is one of the paper's ablations.

    Maps of unequal size, which the paper has not, are refused, or pooled (`unequal_maps: pool`: ours).
    Terms: `ce`, `tat`, `kd`.
    """

    def __init__(self, config: TatConfig, setting: Setting | None = None) -> None:
        """gamma, phi and theta, of the setting's shapes.

        Raises:
            TrialFailed: student or teacher has no last map, or the two differ in size and are not pooled.
        """
        super().__init__(config, setting)
        ours = map_shape(self.setting.student_shapes, LAST_MAP, whose="student", objective="tat")
        theirs = map_shape(self.setting.teacher_shapes, LAST_MAP, whose="teacher", objective="tat")
        self.size = min(ours[1], theirs[1]), min(ours[2], theirs[2])
        if ours[1:] != theirs[1:] and config.unequal_maps is UnequalMaps.REFUSE:
            raise TrialFailed(
                f"tat compares last maps of one size, and the student's is {ours[1]}x{ours[2]}, the "
                f"teacher's {theirs[1]}x{theirs[2]}; `unequal_maps: pool` averages the larger to the size of "
                "the smaller, which the paper does not have"
            )
        self.gamma = _convolved(ours[0], theirs[0])
        self.phi = _convolved(ours[0], theirs[0])
        self.theta = nn.Identity() if config.theta is Theta.IDENTITY else _convolved(theirs[0], theirs[0])

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient."""
        config = self.config.at(signals.epoch, signals.epochs)
        given_BCHW = pooled_to(student_feature(signals, "weak", LAST_MAP), self.size)
        taught_BCHW = pooled_to(teacher_feature(signals, "weak", LAST_MAP), self.size)
        query_BCHW, value_BCHW = head_output(self.gamma, given_BCHW), head_output(self.phi, given_BCHW)
        key_BCHW = head_output(self.theta, taught_BCHW)
        tat = whole_map_loss(query_BCHW, value_BCHW, key_BCHW, taught_BCHW, config.orientation)
        return beside_kd(signals, config, {"tat": (config.tat_weight, tat)})


def _convolved(channels: int, out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1, bias=False), BatchNorm(out))
