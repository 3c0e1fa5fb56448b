"""Adaptive explicit knowledge transfer (Park and Lee, 2024, arXiv 2409.01679), reconstructed."""

# B = samples in the batch

from __future__ import annotations

import math

from torch import Tensor

from trainables.config.objectives import AektConfig
from trainables.objectives.terms.divergences import dkd_parts_B, label_loss
from trainables.signals import Losses, Objective, Signals
from trainables.tensors import at_least_fp32


class AektObjective(Objective[AektConfig]):
    """ce_weight · CE + mean over samples of T² (alpha · r · TCKD + beta · NCKD).

    r = min(b / a, max_ratio), without gradient, with a, b the softened probabilities that student and teacher
    give to the label: the target part weighs more where the student is less sure than the teacher. This is a
    reconstruction from the paper's summary (`form: reconstruction`): the published formula was not
    available, and the paper's linear layer between classification and distillation is left out.
    Terms: `ce`, `tckd` (times r), `nckd`. Gauges: `ratio` (mean of r).
    """

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient."""
        config = self.config.at(signals.epoch, signals.epochs)
        student_BC = signals.student["weak"]
        teacher_BC, labels_B = signals.teacher["weak"].logits_BC, signals.labels_B
        ce = label_loss(signals, "weak")
        tckd_B, nckd_B = dkd_parts_B(student_BC, teacher_BC, labels_B, temperature=config.temperature)
        ratio_B = _ratio_B(student_BC, teacher_BC, labels_B, config)
        tckd, nckd = (ratio_B * tckd_B).mean(), nckd_B.mean()
        total = config.ce_weight * ce + config.alpha * tckd + config.beta * nckd
        return Losses(
            total=total,
            terms={"ce": ce.detach(), "tckd": tckd.detach(), "nckd": nckd.detach()},
            gauges={"ratio": ratio_B.mean()},
        )


def _ratio_B(student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor, config: AektConfig) -> Tensor:
    target_student_B, target_teacher_B = (
        (at_least_fp32(logits_BC.detach()) / config.temperature)
        .log_softmax(dim=-1)
        .gather(-1, labels_B[:, None])
        .squeeze(-1)
        for logits_BC in (student_BC, teacher_BC)
    )
    # The bound comes before the exponential, which would overflow for a student that is sure and wrong.
    return (target_teacher_B - target_student_B).clamp(max=math.log(config.max_ratio)).exp()
