"""Cross-entropy with the labels alone: the control."""

from __future__ import annotations

from trainables.config.objectives import CeConfig
from trainables.objectives.terms.divergences import label_loss
from trainables.signals import Losses, Objective, Signals


class CeObjective(Objective[CeConfig]):
    """CE(student, labels), mean over samples. Terms: `ce`."""

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient."""
        ce = label_loss(signals, "weak")
        return Losses(total=ce, terms={"ce": ce.detach()}, gauges={})
