"""Multi-level logit distillation (Jin, Wang, Lin, CVPR 2023)."""

# B = samples in the batch, C = classes, N = either

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from trainables.config.objectives import MlldConfig, MlldMask, MlldTemperatures
from trainables.objectives.terms.divergences import kd_divergence_B, label_loss, standardised
from trainables.objectives.terms.relations import batch_gap_B, class_gap_C
from trainables.signals import Losses, Objective, Signals, TeacherSignal
from trainables.tensors import at_least_fp32

_OUTER: Final[Mapping[MlldTemperatures, tuple[float, ...]]] = MappingProxyType(
    {MlldTemperatures.FIVE: (2.0, 6.0), MlldTemperatures.THREE: (), MlldTemperatures.ONE: ()}
)
_INNER: Final[Mapping[MlldTemperatures, tuple[float, ...]]] = MappingProxyType(
    {MlldTemperatures.FIVE: (3.0, 5.0), MlldTemperatures.THREE: (3.0, 5.0), MlldTemperatures.ONE: ()}
)


class MlldObjective(Objective[MlldConfig]):
    """ce_weight (CE(s_w) + CE(s_s)) + kd_weight (kd_weak + kd_strong + class + batch).

    m = [confidence <= its percentile in the batch] of each sample and n = [summed probability <= its
    percentile] of each class, both of the teacher on the weak view: the less confident half is kept. With
    K_T = T² KL, BC_T and CC_T the gaps of `relations`, and sums over the temperatures:

        mask         kd_weak            kd_strong                      class            batch
        released     mean m · Σ K_T(w)  Σ K_T(s), but K_T(w) at 2, 6   mean n · Σ CC_T  mean m · Σ BC_T
        per_sample   Σ mean m K_T(w)    Σ K_T(s)                       Σ mean n CC_T    Σ mean m BC_T

    `released` is the authors' code: there a mask scales a term that is a mean already, and the outer
    temperatures of the strong sum see the weak view. `per_sample` is inferred from the paper's intent.
    Standardised logits (LSKD) are for K_T alone. The batch is that of a rank.
    Terms: `ce_weak`, `ce_strong`, `kd_weak`, `kd_strong`, `class`, `batch`. Gauges: `kept_samples`,
    `kept_classes` (fractions).
    """

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient."""
        config = self.config.at(signals.epoch, signals.epochs)
        ce_weak = label_loss(signals, "weak")
        ce_strong = label_loss(signals, "strong")
        kept_B, kept_C = self._kept(signals.teacher["weak"])
        kd_weak, kd_strong = self._instances(signals, kept_B, config.temperature)
        by_class, batch = self._relations(signals, kept_B, kept_C, config.temperature)
        compared = kd_weak + kd_strong + by_class + batch
        total = config.ce_weight * (ce_weak + ce_strong) + config.kd_weight * compared
        terms = {"ce_weak": ce_weak, "ce_strong": ce_strong, "kd_weak": kd_weak, "kd_strong": kd_strong}
        terms |= {"class": by_class, "batch": batch}
        return Losses(
            total=total,
            terms={name: term.detach() for name, term in terms.items()},
            gauges={"kept_samples": kept_B.mean(), "kept_classes": kept_C.mean()},
        )

    def _kept(self, teacher: TeacherSignal) -> tuple[Tensor, Tensor]:
        """1 for the samples, and for the classes, that the teacher is least sure of; else 0."""
        logits_BC = at_least_fp32(teacher.logits_BC.detach())
        confidence_B = at_least_fp32(teacher.confidence_B)
        votes_C = logits_BC.softmax(dim=-1).sum(dim=0)
        percentile = self.config.mask_percentile
        kept = (up_to_percentile(values, percentile) for values in (confidence_B, votes_C))
        kept_B, kept_C = (flags.to(logits_BC.dtype) for flags in kept)
        return kept_B, kept_C

    def _instances(self, signals: Signals, kept_B: Tensor, middle: float) -> tuple[Tensor, Tensor]:
        config = self.config
        inner, outer = (*_INNER[config.temperatures], middle), _OUTER[config.temperatures]
        weak_B, weak_outer_B = self._summed_B(signals, "weak", inner), self._summed_B(signals, "weak", outer)
        strong_B = self._summed_B(signals, "strong", inner)
        if config.mask is MlldMask.RELEASED:
            return kept_B.mean() * (weak_B + weak_outer_B).mean(), (strong_B + weak_outer_B).mean()
        strong_B = strong_B + self._summed_B(signals, "strong", outer)
        return (kept_B * (weak_B + weak_outer_B)).mean(), strong_B.mean()

    def _summed_B(self, signals: Signals, bank: str, temperatures: tuple[float, ...]) -> Tensor:
        """K_T of each sample, summed over temperatures."""
        student_BC, teacher_BC = signals.student[bank], signals.teacher[bank].logits_BC.detach()
        if self.config.standardise:
            student_BC, teacher_BC = standardised(student_BC), standardised(teacher_BC)
        values = [kd_divergence_B(student_BC, teacher_BC, temperature=value) for value in temperatures]
        return (
            torch.stack(values).sum(dim=0) if values else at_least_fp32(student_BC).new_zeros(len(student_BC))
        )

    def _relations(
        self, signals: Signals, kept_B: Tensor, kept_C: Tensor, middle: float
    ) -> tuple[Tensor, Tensor]:
        config = self.config
        student_BC, teacher_BC = signals.student["weak"], signals.teacher["weak"].logits_BC
        temperatures = (*_INNER[config.temperatures], middle, *_OUTER[config.temperatures])
        class_C = torch.stack(
            [class_gap_C(student_BC, teacher_BC, temperature=value) for value in temperatures]
        ).sum(dim=0)
        batch_B = torch.stack(
            [batch_gap_B(student_BC, teacher_BC, temperature=value) for value in temperatures]
        ).sum(dim=0)
        if config.mask is MlldMask.RELEASED:
            return kept_C.mean() * class_C.mean(), kept_B.mean() * batch_B.mean()
        return (kept_C * class_C).mean(), (kept_B * batch_B).mean()


def up_to_percentile(values_N: Tensor, percentile: float) -> Tensor:
    """Whether each value is at most the percentile of all of them, interpolated linearly.

    The percentile lies from the value of rank floor(percentile / 100 · (N - 1)), counted from 0, up to the
    next larger one, so these are the values up to that rank, and those equal to it. The percentile itself
    may be rounded to below that value, which would drop it.
    """
    rank = int(Fraction(str(percentile)) * (len(values_N) - 1) / 100)
    return values_N <= values_N.sort().values[rank]
