"""Correlation with the teacher, by sample and by class (Huang et al., NeurIPS 2022, arXiv 2205.10536)."""

from __future__ import annotations

from trainables.config.objectives import DistConfig
from trainables.objectives.terms.correlations import class_distance, sample_distance_B
from trainables.objectives.terms.divergences import label_loss
from trainables.signals import Losses, Objective, Signals


class DistObjective(Objective[DistConfig]):
    """ce_weight · CE + dist_weight · (beta · inter + gamma · intra).

    inter = T² (1 - mean over samples of the correlation over classes), intra = T² (1 - mean over classes of
    the correlation over the batch), both of probabilities softened by T. The batch is that of a rank. With a
    few samples in it intra is noise: use 32 or more. Terms: `ce`, `inter`, `intra`.
    """

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient."""
        config = self.config.at(signals.epoch, signals.epochs)
        student_BC, teacher_BC = signals.student["weak"], signals.teacher["weak"].logits_BC
        ce = label_loss(signals, "weak")
        inter = sample_distance_B(student_BC, teacher_BC, temperature=config.temperature).mean()
        intra = class_distance(student_BC, teacher_BC, temperature=config.temperature)
        total = config.ce_weight * ce + config.dist_weight * (config.beta * inter + config.gamma * intra)
        terms = {"ce": ce.detach(), "inter": inter.detach(), "intra": intra.detach()}
        return Losses(total=total, terms=terms, gauges={})
