"""Adversarial training on labels and teacher (AKD: Maroto et al., 2022, arXiv 2203.07159)."""

# B = samples in the batch, C = classes

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from trainables.config.objectives import AkdConfig
from trainables.objectives.terms.divergences import check_same_shape, label_loss
from trainables.signals import Losses, Objective, Signals
from trainables.tensors import at_least_fp32


class AkdObjective(Objective[AkdConfig]):
    """(1 - teacher_share) · CE(labels) + teacher_share · CE(the teacher's probabilities), of the student's
    answer to an adversarial image.

    The loop makes the images, by the attack of the configuration. With `teacher_input: view` the teacher
    answers to the view before the attack, so a cache serves it; with `adversarial` to the very image that the
    student sees, for which it runs beside the student (`cache.online`). An attack on the mixture always takes
    the teacher's answer to the view, since the adversarial image is not there yet. That the idea works is
    from the paper's summary; this formula, both inputs, the attack and its defaults are inferred. Temperature
    is 1. Terms: `ce`, `soft`.
    """

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient.

        Raises:
            ValueError: student and teacher differ in shape.
        """
        share = self.config.teacher_share
        ce = label_loss(signals, "weak")
        soft = soft_cross_entropy(signals.student["weak"], signals.teacher["weak"].logits_BC)
        terms = {"ce": ce.detach(), "soft": soft.detach()}
        return Losses(total=(1 - share) * ce + share * soft, terms=terms, gauges={})


def soft_cross_entropy(student_BC: Tensor, teacher_BC: Tensor) -> Tensor:
    """Mean over samples of -Σ p(teacher) log p(student): their divergence and the teacher's entropy.

    Raises:
        ValueError: student and teacher differ in shape.
    """
    check_same_shape(student_BC, teacher_BC)
    target_BC = at_least_fp32(teacher_BC.detach()).softmax(dim=-1)
    return -(target_BC * F.log_softmax(at_least_fp32(student_BC), dim=-1)).sum(dim=-1).mean()
