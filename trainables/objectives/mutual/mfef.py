"""Multi-scale feature extraction and fusion (Zou et al., 2022, arXiv 2206.08224), reconstructed."""

# B = samples in the batch, C = classes, M = networks

from __future__ import annotations

import torch

from trainables.config.mutual.fusion import MfefConfig
from trainables.config.representation.bases import LAST_MAP
from trainables.objectives.mutual.multi_scale import Fusion
from trainables.objectives.mutual.networks import as_the_student, each_network, terms_of
from trainables.objectives.terms.divergences import cross_entropy, kd_divergence_B, label_loss
from trainables.signals import Losses, Setting, Signals, StatefulObjective, student_feature
from trainables.tensors import at_least_fp32


class MfefObjective(StatefulObjective[MfefConfig]):
    """Σ_m CE_m + CE(fusion) + kd_weight · (Σ_m T² KL(sg fusion ‖ m) + T² KL(sg ensemble ‖ fusion)).

    The fusion answers from the last maps of all networks: see `Fusion`. The ensemble is the mean of their
    logits. All but the idea is inferred, since no code was released: that each map is divided into groups of
    channels that are convolved one after the other, attention over channels and then over places, the
    1x1 convolution of the concatenation, and these losses. Labels reach networks through the fusion too.
    Terms: `ce`, `kd` of the student, `peer1_ce`, `peer1_kd` and so on, `fusion_ce`, `fusion_kd`.
    """

    def __init__(self, config: MfefConfig, setting: Setting | None = None) -> None:
        """Raises:
        ValueError: there is no setting, or it holds no networks beside the student.
        """
        super().__init__(config, setting)
        if not self.setting.peer_shapes:
            raise ValueError(
                "mfef fuses several networks; give the setting the shapes of the student's peers"
            )
        shapes = [shapes[LAST_MAP] for shapes in (self.setting.student_shapes, *self.setting.peer_shapes)]
        self.fusion = Fusion(shapes, groups=config.groups, n_classes=self.setting.n_classes)

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient."""
        config, networks = self.config, each_network(signals)
        maps = [student_feature(network, "weak", LAST_MAP) for network in networks]
        with as_the_student(self.setting, maps[0].device):
            fused_BC = self.fusion(maps)
        fused_BC = at_least_fp32(fused_BC)
        answers = [at_least_fp32(network.student["weak"]) for network in networks]
        ensemble_BC = torch.stack(answers).mean(dim=0)
        ce_M = [label_loss(network, "weak") for network in networks]
        kd_M = [self._divergence(own_BC, fused_BC) for own_BC in answers]
        fusion_ce = cross_entropy(
            fused_BC, signals.labels_B, signals.mixed.get("weak"), smoothing=signals.label_smoothing
        )
        fusion_kd = self._divergence(fused_BC, ensemble_BC)
        weight = config.kd_weight * config.varying(signals.epoch, signals.epochs).get("ramp", 1.0)
        total = torch.stack(ce_M).sum() + fusion_ce + weight * (torch.stack(kd_M).sum() + fusion_kd)
        own = {"fusion_ce": fusion_ce.detach(), "fusion_kd": fusion_kd.detach()}
        return Losses(total=total, terms={**terms_of({"ce": ce_M, "kd": kd_M}), **own}, gauges={})

    def _divergence(self, own_BC: torch.Tensor, target_BC: torch.Tensor) -> torch.Tensor:
        return kd_divergence_B(own_BC, target_BC, temperature=self.config.temperature).mean()
