"""What an objective says of representations, put together with the labels and with soft targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from trainables.objectives.terms.divergences import kd_divergence_B, label_loss
from trainables.signals import Losses, Signals


@dataclass(frozen=True)
class Weighted:
    """A named term and what it counts for."""

    weight: float
    term: Tensor


@dataclass(frozen=True)
class Beside:
    """The weights of labels and soft targets, and the temperature of the latter."""

    ce_weight: float
    kd_weight: float
    temperature: float


def composed(
    signals: Signals,
    own: Mapping[str, Weighted],
    beside: Beside,
    gauges: Mapping[str, Tensor] = MappingProxyType({}),
) -> Losses:
    """ce_weight · CE + kd_weight · mean over samples of T² KL(teacher ‖ student) + the weighted terms.

    All on the bank `weak`. The terms `ce` and `kd` are told whatever their weights are.
    """
    ce = label_loss(signals, "weak")
    student_BC, teacher_BC = signals.student["weak"], signals.teacher["weak"].logits_BC
    kd = kd_divergence_B(student_BC, teacher_BC, temperature=beside.temperature).mean()
    terms = {"ce": Weighted(beside.ce_weight, ce), "kd": Weighted(beside.kd_weight, kd), **own}
    total = ce.new_zeros(())
    for weighted in terms.values():
        total = total + weighted.weight * weighted.term
    return Losses(total, {name: weighted.term.detach() for name, weighted in terms.items()}, gauges)
