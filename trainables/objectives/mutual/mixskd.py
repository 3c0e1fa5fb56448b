"""Self-distillation from mixed images (MixSKD: Yang et al., ECCV 2022, arXiv 2208.05768)."""

# B = samples in the batch, C = classes, K = stages, D = channels of the last map, h, w = its height and width

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.config.mutual.mixing import MixskdConfig, MixskdMode
from trainables.config.objective_base import MIXED
from trainables.config.representation.bases import LAST_MAP
from trainables.objectives.mutual.discriminators import Discriminator, reversed_gradient
from trainables.objectives.mutual.networks import as_the_student
from trainables.objectives.mutual.terms.branches import stages_of
from trainables.objectives.terms.divergences import cross_entropy, kd_divergence_B
from trainables.signals import Losses, Pairs, Setting, Signals, StatefulObjective
from trainables.tensors import at_least_fp32


@dataclass(frozen=True)
class Stage:
    """What a stage's branch, or the network itself, says of images and of their mixtures."""

    clean_BC: Tensor
    mixed_BC: Tensor
    clean_BDhw: Tensor
    mixed_BDhw: Tensor

    def linear_BC(self, pairs: Pairs) -> Tensor:
        """The mixture of what is said of both images."""
        return pairs.mixed(self.clean_BC)

    def linear_BDhw(self, pairs: Pairs) -> Tensor:
        """The mixture of the maps of both images."""
        return pairs.mixed(self.clean_BDhw)


class SelfTeacher(nn.Module):
    """Logits of the maps of all stages: concatenated, convolved to D channels, mean over places, linear."""

    def __init__(self, n_stages: int, channels: int, n_classes: int) -> None:
        super().__init__()
        self.join = nn.Conv2d(n_stages * channels, channels, 1)
        self.head = nn.Linear(channels, n_classes)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """BxC."""
        logits_BC: Tensor = self.head(self.join(torch.cat(maps, dim=1)).mean(dim=(2, 3)))
        return logits_BC


class MixskdObjective(StatefulObjective[MixskdConfig]):
    """L_cls + kl_weight · L_kl + feature_weight · L_feat + disc_weight · L_disc (eq. 10).

    Each stage but the last has a branch: the network's own later stages again, with weights of their own, so
    that all K maps have the shape of the last one. With lin = share · z(x) + (1 - share) · z(x') of the
    partner's image x', mix = z(mixed image), and CEm the cross-entropy of mixed labels:
    L_cls = Σ_k CE(z_k(x)) + Σ_k CEm(mix_k) + CEm(E_lin) + CEm(E_mix), E being the self-teacher's answers to
    mixed maps and to maps of mixed images; L_kl = T² times KL(E_mix ‖ lin_K) + KL(E_lin ‖ mix_K) of the
    network, and both ways between lin_k and mix_k of the branches, targets held still;
    L_feat = Σ_k mean (F_lin - F_mix)², no side held still; L_disc = Σ_k the discriminators' loss.
    `mode: script` is the authors' script for CIFAR: without the three CEm, discriminators that are not
    trained, and no gradient reversed. Batch statistics are over images and mixtures together.
    Terms: `ce`, `ce_mixed`, `kl`, `features`, `discriminators`. Gauge: `share`.
    """

    def __init__(self, config: MixskdConfig, setting: Setting | None = None) -> None:
        """Raises:
        ValueError: there is no setting, or it cannot make branches.
        TrialFailed: the network cannot be cut at a stage.
        """
        super().__init__(config, setting)
        shapes, later = self.setting.student_shapes, self.setting.later_stages
        if later is None or not shapes:
            raise ValueError(
                "mixskd makes branches of the network; give the setting its stages and `later_stages`"
            )
        self.stages = tuple(stages_of(shapes))
        *earlier, last = self.stages
        channels = shapes[last][0]
        self.branches = nn.ModuleDict({name: later(name, 0) for name in earlier})
        self.self_teacher = SelfTeacher(len(self.stages), channels, self.setting.n_classes)
        n_discriminators = len(self.stages) if config.disc_weight > 0 else 0
        self.discriminators = nn.ModuleList(Discriminator(channels) for _ in range(n_discriminators))
        if config.mode is MixskdMode.SCRIPT:
            self.discriminators.requires_grad_(False)

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient.

        Raises:
            ValueError: the signals do not say how images were mixed.
        """
        config, pairs = self.config, signals.pairs
        if pairs is None:
            raise ValueError("the signals hold no pairs; mix the images of each batch")
        with as_the_student(self.setting, signals.labels_B.device):
            stages = self._stages(signals)
            fused_BC = self.self_teacher([stage.mixed_BDhw for stage in stages])
            linear_BC = self.self_teacher([stage.linear_BDhw(pairs) for stage in stages])
        fused_BC, linear_BC = at_least_fp32(fused_BC), at_least_fp32(linear_BC)
        ce = torch.stack([self._labels(stage.clean_BC, signals) for stage in stages]).sum()
        of_mixtures = [*(stage.mixed_BC for stage in stages), linear_BC, fused_BC]
        ce_mixed = torch.stack([self._mixed_labels(one_BC, signals, pairs) for one_BC in of_mixtures]).sum()
        kl = self._divergences(stages, fused_BC, linear_BC, pairs)
        features = torch.stack([self._distance(stage, pairs) for stage in stages]).sum()
        deceived = self._discriminated(stages, pairs)
        total = ce + config.kl_weight * kl + config.feature_weight * features + config.disc_weight * deceived
        if config.mode is MixskdMode.PAPER:
            total = total + ce_mixed
        terms = {"ce": ce, "ce_mixed": ce_mixed, "kl": kl, "features": features, "discriminators": deceived}
        return Losses(
            total=total,
            terms={name: term.detach() for name, term in terms.items()},
            gauges={"share": pairs.share.detach().to(total.dtype)},
        )

    def _stages(self, signals: Signals) -> list[Stage]:
        """What each branch says, then the network itself."""
        clean, mixed = signals.features["weak"], signals.features[MIXED]
        found = []
        for name, branch in self.branches.items():
            logits_2BC, further = branch(torch.cat([clean[name], mixed[name]]))
            answers, maps = at_least_fp32(logits_2BC).chunk(2), at_least_fp32(further[LAST_MAP]).chunk(2)
            found.append(Stage(*answers, *maps))
        last, own = self.stages[-1], signals.student
        answers = (at_least_fp32(own["weak"]), at_least_fp32(own[MIXED]))
        return [*found, Stage(*answers, clean[last], mixed[last])]

    def _labels(self, logits_BC: Tensor, signals: Signals) -> Tensor:
        return cross_entropy(logits_BC, signals.labels_B, smoothing=signals.label_smoothing)

    def _mixed_labels(self, logits_BC: Tensor, signals: Signals, pairs: Pairs) -> Tensor:
        """share · CE with the own labels + (1 - share) · CE with the partners'."""
        own, smoothing = signals.labels_B, signals.label_smoothing
        partners = cross_entropy(logits_BC, own[pairs.partner_B], smoothing=smoothing)
        return pairs.share * cross_entropy(logits_BC, own, smoothing=smoothing) + (1 - pairs.share) * partners

    def _divergences(self, stages: list[Stage], fused_BC: Tensor, linear_BC: Tensor, pairs: Pairs) -> Tensor:
        *branches, network = stages
        found = [self._kl(network.linear_BC(pairs), fused_BC), self._kl(network.mixed_BC, linear_BC)]
        for stage in branches:
            mixture_BC = stage.linear_BC(pairs)
            found += [self._kl(mixture_BC, stage.mixed_BC), self._kl(stage.mixed_BC, mixture_BC)]
        return torch.stack(found).sum()

    def _kl(self, own_BC: Tensor, target_BC: Tensor) -> Tensor:
        return kd_divergence_B(own_BC, target_BC, temperature=self.config.temperature).mean()

    def _distance(self, stage: Stage, pairs: Pairs) -> Tensor:
        return F.mse_loss(at_least_fp32(stage.linear_BDhw(pairs)), at_least_fp32(stage.mixed_BDhw))

    def _discriminated(self, stages: list[Stage], pairs: Pairs) -> Tensor:
        if not self.discriminators:
            return stages[-1].clean_BC.new_zeros((), dtype=torch.float32)
        shown = reversed_gradient if self.config.mode is MixskdMode.PAPER else _as_it_is
        losses = [
            judge(shown(at_least_fp32(stage.linear_BDhw(pairs))), shown(at_least_fp32(stage.mixed_BDhw)))
            for judge, stage in zip(self.discriminators, stages, strict=True)
        ]
        return torch.stack(losses).sum()


def _as_it_is(values: Tensor) -> Tensor:
    return values
