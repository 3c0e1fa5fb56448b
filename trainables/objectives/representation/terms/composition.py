"""An objective's own terms beside the labels and KD's soft targets, as the CRD benchmark adds them up."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from torch import Tensor

from trainables.objectives.terms.divergences import kd_divergence_B, label_loss
from trainables.signals import Losses, Signals


class BesideKdWeights(Protocol):
    """The weights that stand beside those of an objective's own terms."""

    @property
    def ce_weight(self) -> float:
        """Of the labels."""
        ...

    @property
    def kd_weight(self) -> float:
        """Of the soft targets; 0: none."""
        ...

    @property
    def temperature(self) -> float:
        """Of the soft targets."""
        ...


def beside_kd(
    signals: Signals,
    weights: BesideKdWeights,
    own: Mapping[str, tuple[float, Tensor]],
    bank: str = "weak",
    *,
    gauges: Mapping[str, Tensor] = MappingProxyType({}),
) -> Losses:
    """ce_weight · CE + kd_weight · T² KL(teacher ‖ student) + the sum of weight · value of `own`.

    In the benchmark of CRD (Tian et al., ICLR 2020, arXiv 1910.10699) gamma, alpha and beta weigh the three.
    The terms are `ce`, `kd` and those of `own`. `kd` is told where its weight is 0, too: it has no gradient
    then.
    """
    ce = label_loss(signals, bank)
    logits_BC = signals.student[bank] if weights.kd_weight > 0 else signals.student[bank].detach()
    teacher_BC = signals.teacher[bank].logits_BC
    kd = kd_divergence_B(logits_BC, teacher_BC, temperature=weights.temperature).mean()
    total = weights.ce_weight * ce + weights.kd_weight * kd
    for weight, value in own.values():
        total = total + weight * value
    terms = {"ce": ce, "kd": kd} | {name: value for name, (_, value) in own.items()}
    return Losses(total=total, terms={name: term.detach() for name, term in terms.items()}, gauges=gauges)
