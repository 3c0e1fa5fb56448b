"""Auxiliary classifiers of class and turn (HSAKD: Yang et al., IJCAI 2021, arXiv 2107.13715)."""

# B = images, C = classes, J = 4 C joint labels of class and turn, H, W = height and width of a map

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainables.config.objective_base import ROTATED
from trainables.config.representation.rotations import HsakdConfig
from trainables.objectives.representation.terms.joint_branches import JointBranches
from trainables.objectives.terms.divergences import kd_divergence_B, label_loss
from trainables.signals import Losses, Setting, Signals, StatefulObjective, student_feature, teacher_feature
from trainables.tensors import at_least_fp32


class HsakdObjective(StatefulObjective[HsakdConfig]):
    """ce_weight · CE of upright images + kd_weight · KL of logits + branch_weight · Σ over branches of KL.

    KL is T² KL(teacher ‖ student), mean over the 4 B rows of all turns. A branch stands on each of the first
    `stages` stages of the student, and gives logits of class and turn together, class first (`JointBranches`:
    what its layers are is inferred; a `branch_depth` of 1 keeps a step within eight of cross-entropy, where
    the paper's blocks have two convolutions or more); the teacher's are those that it was prepared with.
    Their gradient flows into the student. The student gets no cross-entropy of joint labels, which the paper
    found to harm. The branches are dropped at the end.
    Terms: `ce`, `kd`, `branches` and each `branch1` and so on.
    """

    def __init__(self, config: HsakdConfig, setting: Setting | None = None) -> None:
        """Raises:
        ValueError: there is no setting, or it holds no shape of a map for one of the stages.
        """
        super().__init__(config, setting)
        shapes = self.setting.student_shapes
        if missing := [name for name in config.student_features if name not in shapes]:
            raise ValueError(f"hsakd has a branch on {missing[0]}; the setting has no shape of the student's")
        self.branches = JointBranches(
            [shapes[name] for name in config.student_features],
            self.setting.n_classes,
            depth=config.branch_depth,
        )

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient.

        Raises:
            ValueError: the signals hold no map of a stage, or no joint logits of the teacher's branches.
        """
        config = self.config.at(signals.epoch, signals.epochs)
        maps = [
            _of_all({bank: student_feature(signals, bank, name) for bank in ROTATED})
            for name in config.student_features
        ]
        joint = dict(zip(config.teacher_features, self.branches(maps), strict=True))
        taught = {name: _of_all({b: teacher_feature(signals, b, name) for b in ROTATED}) for name in joint}
        terms = {name: kl_T(joint[name], taught[name], temperature=config.temperature) for name in joint}
        branches = torch.stack(list(terms.values())).sum()
        ce = label_loss(signals, "weak")
        kd = kl_T(
            _of_all(signals.student),
            _of_all({bank: signals.teacher[bank].logits_BC for bank in ROTATED}),
            temperature=config.temperature,
        )
        total = config.ce_weight * ce + config.kd_weight * kd + config.branch_weight * branches
        terms = {"ce": ce, "kd": kd, "branches": branches, **terms}
        return Losses(total, {name: term.detach() for name, term in terms.items()}, gauges={})


def kl_T(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """T² KL(teacher ‖ student) of logits of classes, or of class and turn together; mean over rows."""
    return kd_divergence_B(student, teacher, temperature=temperature).mean()


def _of_all(by_bank: Mapping[str, Tensor]) -> Tensor:
    """The rows of all turns, bank by bank, at least in fp32: in one order for all that is compared."""
    return torch.cat([at_least_fp32(by_bank[bank]) for bank in ROTATED])
