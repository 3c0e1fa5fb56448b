"""A token whose head learns from the teacher (DeiT: Touvron et al., ICML 2021, arXiv 2012.12877)."""

# B = samples in the batch, C = classes

from __future__ import annotations

from dataclasses import replace
from typing import Final

from torch import Tensor

from trainables.config.representation.inputs import (
    CLASS_LOGITS,
    DISTILLATION_LOGITS,
    DeitConfig,
    DistillationForm,
)
from trainables.objectives.terms.divergences import (
    check_same_shape,
    cross_entropy,
    kd_divergence_B,
    label_loss,
)
from trainables.signals import Losses, Objective, Signals, student_feature

_BANK: Final = "weak"


class DeitObjective(Objective[DeitConfig]):
    """ce_weight · CE(class head, labels) + distillation_weight · what the distillation head is taught.

    The student is a vision transformer with a distillation token beside its class token, each with a linear
    head of its own; its answer is the mean of both heads' logits, in evaluation and export alike.
    Form `hard`: CE(distillation head, the teacher's most probable class), weights 1/2 and 1/2 (eq. 3).
    Form `soft`: T² KL(teacher ‖ distillation head), weights 1 - lambda = 0.9 and lambda = 0.1, T = 3 (eq. 2,
    given to the distillation head as the authors' code does). The recipe's label smoothing is of the labels
    alone, as in the paper. `kd_weight` adds T² KL(teacher ‖ mean of both heads), which is not in the paper.
    Terms: `ce`, `distillation`, `kd`. Gauge: `agreement`, the part of the batch on which both heads' most
    probable classes are one.
    """

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient.

        Raises:
            ValueError: the signals hold no logits of the two heads, or student and teacher differ in classes.
        """
        config = self.config.at(signals.epoch, signals.epochs)
        class_BC = student_feature(signals, _BANK, CLASS_LOGITS)
        distilled_BC = student_feature(signals, _BANK, DISTILLATION_LOGITS)
        teacher_BC = signals.teacher[_BANK].logits_BC
        ce = label_loss(replace(signals, student={_BANK: class_BC}), _BANK)
        if config.form is DistillationForm.HARD:
            distillation = hard_distillation(distilled_BC, teacher_BC)
        else:
            distillation = kd_divergence_B(distilled_BC, teacher_BC, temperature=config.temperature).mean()
        kd = kd_divergence_B(signals.student[_BANK], teacher_BC, temperature=config.temperature).mean()
        agreement = (class_BC.argmax(dim=-1) == distilled_BC.argmax(dim=-1)).to(ce.dtype).mean()
        return Losses(
            total=config.ce_weight * ce + config.distillation_weight * distillation + config.kd_weight * kd,
            terms={"ce": ce.detach(), "distillation": distillation.detach(), "kd": kd.detach()},
            gauges={"agreement": agreement},
        )


def hard_distillation(student_BC: Tensor, teacher_BC: Tensor) -> Tensor:
    """Mean over samples of -log softmax(student)[the teacher's most probable class], the first of equals.

    Raises:
        ValueError: student and teacher differ in shape.
    """
    check_same_shape(student_BC, teacher_BC)
    return cross_entropy(student_BC, teacher_BC.argmax(dim=-1))
