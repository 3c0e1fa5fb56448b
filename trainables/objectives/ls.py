"""Label smoothing (Szegedy et al., CVPR 2016, arXiv 1512.00567)."""

from __future__ import annotations

from trainables.config.objectives import LsConfig
from trainables.objectives.terms.divergences import cross_entropy
from trainables.signals import Losses, Objective, Signals


class LsObjective(Objective[LsConfig]):
    """Cross-entropy with (1 - smoothing) · one-hot + smoothing / C, mean over samples. Terms: `smoothed`."""

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient."""
        smoothed = cross_entropy(
            signals.student["weak"],
            signals.labels_B,
            signals.mixed.get("weak"),
            smoothing=self.config.smoothing,
        )
        return Losses(total=smoothed, terms={"smoothed": smoothed.detach()}, gauges={})
