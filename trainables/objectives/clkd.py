"""Logits compared by sample, by class and by covariance (CLKD: Zhang et al., 2022, arXiv 2211.14773)."""

# B = samples in the batch, C = classes

from __future__ import annotations

import torch
from torch import Tensor

from trainables.config.objectives import ClkdConfig, Covariance
from trainables.objectives.terms.directions import directions
from trainables.objectives.terms.divergences import check_same_shape, label_loss
from trainables.signals import Losses, Objective, Signals
from trainables.tensors import at_least_fp32


class ClkdObjective(Objective[ClkdConfig]):
    """ce_weight · CE + logit_weight · (sample + beta · class) + covariance_weight · covariance.

    `sample` is the mean over all BxC entries of the squared difference of the rows of both networks' logits,
    each of length 1; `class` the same with columns of length 1; `covariance` is ||G(s) - G(t)||² / C². There
    is no softmax and no temperature, and the batch is that of a rank. Formula and weights of the first two
    are those of two re-implementations, the covariance is inferred (they disagree):

        class     G = Zᵗ Z / (B - 1), CxC, with Z centred over the batch
        sample    G = Z Zᵗ / (C - 1), BxB, with Z centred over the classes

    The covariance grows with the fourth power of the logits. Where those of the teacher are large it drowns
    all else at its default weight; look at `covariance` beside `ce` in the first epochs.
    It needs the teacher's logits themselves: the first two change with a constant added to a row.
    Terms: `ce`, `sample`, `class`, `covariance`.
    """

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient."""
        config = self.config.at(signals.epoch, signals.epochs)
        student_BC = at_least_fp32(signals.student["weak"])
        teacher_BC = at_least_fp32(signals.teacher["weak"].logits_BC.detach())
        check_same_shape(student_BC, teacher_BC)
        ce = label_loss(signals, "weak")
        by_sample = (directions(student_BC, dim=-1) - directions(teacher_BC, dim=-1)).square().mean()
        by_class = (directions(student_BC, dim=0) - directions(teacher_BC, dim=0)).square().mean()
        difference = self._covariance(student_BC) - self._covariance(teacher_BC)
        covariance = difference.square().sum() / student_BC.shape[-1] ** 2
        total = (
            config.ce_weight * ce
            + config.logit_weight * (by_sample + config.beta * by_class)
            + config.covariance_weight * covariance
        )
        terms = {"ce": ce, "sample": by_sample, "class": by_class, "covariance": covariance}
        return Losses(total=total, terms={name: term.detach() for name, term in terms.items()}, gauges={})

    def _covariance(self, logits_BC: Tensor) -> Tensor:
        over = 0 if self.config.covariance is Covariance.CLASS else 1
        centred_BC = logits_BC - logits_BC.mean(dim=over, keepdim=True)
        freedom = max(logits_BC.shape[over] - 1, 1)  # a single sample has no covariance: 0, not 0 / 0
        rows = centred_BC.T if over == 0 else centred_BC
        # Autocast would take products of matrices in half precision, where logits of 60 leave no digits.
        with torch.autocast(logits_BC.device.type, enabled=False):
            return rows @ rows.T / freedom
