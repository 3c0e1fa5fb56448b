"""Decoupled knowledge distillation (Zhao et al., CVPR 2022, arXiv 2203.08679)."""

from __future__ import annotations

from trainables.config.objectives import DkdConfig
from trainables.config.schedules import warm_up
from trainables.objectives.terms.divergences import dkd_parts_B, label_loss, standardised
from trainables.signals import Losses, Objective, Signals


class DkdObjective(Objective[DkdConfig]):
    """ce_weight · CE + warmup(epoch) · mean over samples of T² (alpha · TCKD + beta · NCKD).

    warmup(epoch) = min(epoch / warmup_epochs, 1), with the first epoch counted as 1. It is the paper's own:
    it is told even where it is 1 from the first epoch on.
    With `standardise` both parts are of standardised logits (LSKD, arXiv 2403.01427); its defaults are T = 2,
    alpha 9 and beta 9 times the pair's own.
    Terms: `ce`, `tckd`, `nckd` (without the warm-up). Gauges: `warmup`.
    """

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient."""
        config = self.config.at(signals.epoch, signals.epochs)
        student_BC = signals.student["weak"]
        teacher_BC = signals.teacher["weak"].logits_BC
        ce = label_loss(signals, "weak")
        if config.standardise:
            student_BC, teacher_BC = standardised(student_BC), standardised(teacher_BC)
        tckd_B, nckd_B = dkd_parts_B(student_BC, teacher_BC, signals.labels_B, temperature=config.temperature)
        tckd, nckd = tckd_B.mean(), nckd_B.mean()
        total = config.ce_weight * ce + (config.alpha * tckd + config.beta * nckd)
        warmup = warm_up(signals.epoch, self.config.warmup_epochs)
        return Losses(
            total=total,
            terms={"ce": ce.detach(), "tckd": tckd.detach(), "nckd": nckd.detach()},
            gauges={"warmup": ce.new_full((), warmup)},
        )
