"""What a teacher is prepared by: losses of parts beside it, whose features take the place of a student's."""

# B = images, R = 4 B rows of all turns, J = 4 labels of each class: class and turn, D = numbers of the head

from __future__ import annotations

import torch

from trainables.config.objective_base import ROTATED
from trainables.config.representation.preparation import (
    SS_HEAD,
    PrepareBranchesConfig,
    PrepareHeadConfig,
)
from trainables.objectives.representation.terms.joint_branches import branch_losses
from trainables.objectives.representation.terms.rotations import in_rows
from trainables.objectives.representation.terms.self_supervision import own_image_loss
from trainables.objectives.terms.divergences import label_loss
from trainables.signals import Losses, Objective, Signals, student_feature


class PrepareHeadObjective(Objective[PrepareHeadConfig]):
    """Cross-entropy of each turned image's cosines to the upright ones, with its own as the class.

    Term: `ss`.
    """

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step."""
        head_RD = in_rows({bank: student_feature(signals, bank, SS_HEAD) for bank in ROTATED})
        loss = own_image_loss(head_RD)
        return Losses(loss, {"ss": loss.detach()}, gauges={})


class PrepareBranchesObjective(Objective[PrepareBranchesConfig]):
    """The sum over branches of the cross-entropy with labels of class and turn, mean over all turns.

    Where the network learns with them (the paper's Teacher*), the cross-entropy of its logits of upright
    images is added. Terms: each `branch1` and so on, and then `ce`.
    """

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step."""
        joint = {
            name: in_rows({bank: student_feature(signals, bank, name) for bank in ROTATED})
            for name in self.config.student_features
        }
        losses = branch_losses(joint, signals.labels_B)
        if self.config.joint:
            losses["ce"] = label_loss(signals, "weak")
        total = torch.stack(list(losses.values())).sum()
        return Losses(total, {name: loss.detach() for name, loss in losses.items()}, gauges={})
