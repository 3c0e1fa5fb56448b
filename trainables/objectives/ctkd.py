"""Curriculum temperature: learned against the student (CTKD: Li et al., AAAI 2023, arXiv 2211.16231)."""

# B = samples in the batch

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from trainables.config.objectives import CtkdBase, CtkdConfig
from trainables.objectives.terms.divergences import dkd_parts_B, kd_divergence_B, label_loss
from trainables.signals import Losses, Setting, Signals, StatefulObjective


class CtkdObjective(StatefulObjective[CtkdConfig]):
    """ce_weight · CE + kd_weight · the mean over samples of a divergence at a learned temperature.

    T = least_temperature + temperature_range · sigmoid(theta), and T² in the divergence has its gradient too.
    theta starts at 1 and is trained by the student's optimiser, its weight decay included, but with a
    reversed gradient: -strength(epoch) times its own, so that it makes the divergence larger. strength goes
    up by half a cosine over `curriculum_epochs`, the first epoch counted as 1, to `reversal`. The student's
    gradient is not reversed. This is the paper's global variant; the one with a temperature for each sample
    is left out.
    Terms: `ce`, `kd` (base dkd: alpha · TCKD + beta · NCKD). Gauges: `temperature`, `reversal`.
    """

    def __init__(self, config: CtkdConfig, setting: Setting | None = None) -> None:
        super().__init__(config, setting)
        self.theta = nn.Parameter(torch.ones(()))

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient."""
        config = self.config.at(signals.epoch, signals.epochs)
        strength = reversal_strength(config, signals.epoch)
        theta: Tensor = _Reversed.apply(self.theta, strength)  # type: ignore[no-untyped-call]
        temperature = config.least_temperature + config.temperature_range * theta.sigmoid()
        ce = label_loss(signals, "weak")
        kd = self._divergence_B(signals, temperature).mean()
        return Losses(
            total=config.ce_weight * ce + config.kd_weight * kd,
            terms={"ce": ce.detach(), "kd": kd.detach()},
            gauges={"temperature": temperature.detach(), "reversal": ce.new_full((), strength)},
        )

    def _divergence_B(self, signals: Signals, temperature: Tensor) -> Tensor:
        student_BC, teacher_BC = signals.student["weak"], signals.teacher["weak"].logits_BC
        if self.config.base is CtkdBase.KD:
            return kd_divergence_B(student_BC, teacher_BC, temperature=temperature)
        tckd_B, nckd_B = dkd_parts_B(student_BC, teacher_BC, signals.labels_B, temperature=temperature)
        return self.config.alpha * tckd_B + self.config.beta * nckd_B


def reversal_strength(config: CtkdConfig, epoch: int) -> float:
    """reversal · (1 - cos(π min(epoch / curriculum_epochs, 1))) / 2."""
    part = min(epoch / config.curriculum_epochs, 1.0)
    return config.reversal * (1 - math.cos(math.pi * part)) / 2


class _Reversed(torch.autograd.Function):
    """The value itself forward, -strength times the gradient backward."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None
