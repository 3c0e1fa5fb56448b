"""Cross-view consistency, gated by the teacher's confidence (Zhang et al., ACM MM 2024, arXiv 2412.16493)."""

# B = samples in the batch

from __future__ import annotations

from torch import Tensor

from trainables.config.objectives import CrldConfig, Gate
from trainables.objectives.terms.comparisons import compare
from trainables.objectives.terms.divergences import label_loss
from trainables.signals import Losses, Objective, Signals, TeacherSignal
from trainables.tensors import at_least_fp32


class CrldObjective(Objective[CrldConfig]):
    """Same-view and cross-view matching of a weak and a strong view of each sample.

    With K = T² KL(teacher ‖ student) of a sample and m = [teacher confidence >= threshold] of its view:
    total = ce_weight (CE(s_w) + CE(s_s)) + within_weight · within + cross_weight · cross, where

        gate        within                                    cross
        released    mean m_w (K(s_w, t_w) + K(s_s, t_s))      mean m_s (K(s_s, t_w) + K(s_w, t_s))
        own_view    mean m_w K(s_w, t_w) + m_s K(s_s, t_s)    mean m_w K(s_s, t_w) + m_s K(s_w, t_s)

    Means divide by all samples, not by those kept. The confidence knows no label: a teacher that is wrong and
    sure passes. `released` is the authors' code; `own_view` is inferred from the paper's framework figure.

    `base` puts another loss in the place of K, with its papers' weights. What follows is inferred, since only
    K and DKD have a value for each sample that a threshold could drop:

        dkd     T² (alpha TCKD + beta NCKD) of each sample, without a warm-up of their own
        dist    T² (1 - correlation) of each sample, and DIST's class term over the samples kept, multiplied
                by their fraction
        mlld    K_T and MLLD's batch and class terms, summed over 2, 3, `temperature`, 5, 6; samples that are
                not kept count as 0 in both networks, and MLLD's own masks give way to the thresholds

    With `standardise` the logits of kd, dkd and mlld's K_T are standardised (LSKD, arXiv 2403.01427).
    Terms: `ce_weak`, `ce_strong`, `within`, `cross`. Gauges: `kept_weak`, `kept_strong` (fractions).
    """

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient."""
        config = self.config.at(signals.epoch, signals.epochs)
        ce_weak = label_loss(signals, "weak")
        ce_strong = label_loss(signals, "strong")
        keep_weak_B = _at_least(signals.teacher["weak"], config.weak_threshold)
        keep_strong_B = _at_least(signals.teacher["strong"], config.strong_threshold)
        within, cross = _consistency(signals, keep_weak_B, keep_strong_B, config)
        total = (
            config.ce_weight * (ce_weak + ce_strong)
            + config.within_weight * within
            + config.cross_weight * cross
        )
        return Losses(
            total=total,
            terms={
                "ce_weak": ce_weak.detach(),
                "ce_strong": ce_strong.detach(),
                "within": within.detach(),
                "cross": cross.detach(),
            },
            gauges={
                "kept_weak": keep_weak_B.to(total.dtype).mean(),
                "kept_strong": keep_strong_B.to(total.dtype).mean(),
            },
        )


def _consistency(
    signals: Signals, keep_weak_B: Tensor, keep_strong_B: Tensor, config: CrldConfig
) -> tuple[Tensor, Tensor]:
    """(within, cross), before their weights."""

    def compared(student: str, teacher: str, keep_B: Tensor) -> Tensor:
        teacher_BC = signals.teacher[teacher].logits_BC
        return compare(signals.student[student], teacher_BC, signals.labels_B, keep_B, config)

    released = config.gate is Gate.RELEASED
    weak_within, strong_within = keep_weak_B, keep_weak_B if released else keep_strong_B
    strong_from_weak, weak_from_strong = keep_strong_B if released else keep_weak_B, keep_strong_B
    within = compared("weak", "weak", weak_within) + compared("strong", "strong", strong_within)
    cross = compared("strong", "weak", strong_from_weak) + compared("weak", "strong", weak_from_strong)
    return within, cross


def _at_least(teacher: TeacherSignal, threshold: float) -> Tensor:
    """Whether each sample's confidence reaches the threshold; a sample at the threshold is kept."""
    return at_least_fp32(teacher.confidence_B) >= threshold
