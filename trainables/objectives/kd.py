"""Soft targets (Hinton et al., 2015, arXiv 1503.02531)."""

from __future__ import annotations

from trainables.config.objectives import KdConfig
from trainables.objectives.terms.divergences import kd_divergence_B, label_loss, standardised
from trainables.signals import Losses, Objective, Signals


class KdObjective(Objective[KdConfig]):
    """ce_weight · CE + kd_weight · mean over samples of T² KL(teacher ‖ student).

    With `standardise` the divergence is of standardised logits: LSKD (Sun et al., CVPR 2024, arXiv
    2403.01427), whose defaults are T = 2 and kd_weight 9. Terms: `ce`, `kd`.
    """

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient."""
        config = self.config.at(signals.epoch, signals.epochs)
        student_BC = signals.student["weak"]
        teacher_BC = signals.teacher["weak"].logits_BC
        ce = label_loss(signals, "weak")
        if config.standardise:
            student_BC, teacher_BC = standardised(student_BC), standardised(teacher_BC)
        kd = kd_divergence_B(student_BC, teacher_BC, temperature=config.temperature).mean()
        total = config.ce_weight * ce + config.kd_weight * kd
        return Losses(total=total, terms={"ce": ce.detach(), "kd": kd.detach()}, gauges={})
