"""Contrast of samples in a batch (CKD: Zhu et al., 2024, arXiv 2404.14109)."""

# B = samples in the batch, C = classes

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.config.objectives import CkdConfig
from trainables.objectives.terms.directions import directions
from trainables.objectives.terms.divergences import check_same_shape, label_loss
from trainables.signals import Losses, Objective, Signals


class CkdObjective(Objective[CkdConfig]):
    """ce_weight · CE + contrast_weight · mean over samples i of -log softmax_j(<u(t_i), u(s_j)> / T)[i].

    u(z) is z of length 1. Anchors are the teacher's logits, candidates the student's of the whole batch (that
    of a rank), as in the authors' code; the paper's second version words it otherwise. The contrast is
    neither 0 nor smallest where student and teacher are equal, and it grows with the batch as log B. It needs
    the teacher's logits themselves: a constant added to a row turns it. Terms: `ce`, `contrast`.
    """

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient."""
        config = self.config.at(signals.epoch, signals.epochs)
        student_BC = signals.student["weak"]
        ce = label_loss(signals, "weak")
        contrast = contrast_of(student_BC, signals.teacher["weak"].logits_BC, temperature=config.temperature)
        total = config.ce_weight * ce + config.contrast_weight * contrast
        return Losses(total=total, terms={"ce": ce.detach(), "contrast": contrast.detach()}, gauges={})


def contrast_of(student_BC: Tensor, teacher_BC: Tensor, *, temperature: float) -> Tensor:
    """Mean over the teacher's rows of the cross-entropy of finding the student's row of that sample.

    Raises:
        ValueError: student and teacher differ in shape.
    """
    check_same_shape(student_BC, teacher_BC)
    # Autocast would take products of matrices in half precision.
    with torch.autocast(student_BC.device.type, enabled=False):
        anchors_BC, candidates_BC = directions(teacher_BC.detach(), dim=-1), directions(student_BC, dim=-1)
        cosine_BB = anchors_BC @ candidates_BC.T
    own_B = torch.arange(len(student_BC), device=student_BC.device)
    return F.cross_entropy(cosine_BB / temperature, own_B)
