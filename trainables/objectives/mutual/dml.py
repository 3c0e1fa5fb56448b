"""Deep mutual learning (Zhang et al., CVPR 2018, arXiv 1706.00384)."""

# B = samples in the batch, C = classes, K = networks

from __future__ import annotations

import torch
from torch import Tensor

from trainables.config.mutual.peers import DmlConfig, PeersTarget, PeersWeight
from trainables.objectives.mutual.networks import each_network, terms_of
from trainables.objectives.terms.divergences import kd_divergence_B, label_loss
from trainables.signals import Losses, Objective, Signals
from trainables.tensors import at_least_fp32


class DmlObjective(Objective[DmlConfig]):
    """Σ_k CE_k + kl_weight · 1/(K-1) Σ_{l≠k} T² KL(sg p_l ‖ p_k), over K networks (eq. 2, 4, 6).

    The gradient of a network's loss reaches that network alone. All networks answer first and then all are
    updated, as in the released code; the paper updates one after the other. Terms: `ce`, `kl` of the student,
    `peer1_ce`, `peer1_kl` and so on of the others.
    """

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient."""
        networks = each_network(signals)
        answers = [network.student["weak"] for network in networks]
        ce_K = [label_loss(network, "weak") for network in networks]
        kl_K = [self._from_others(answers, number) for number in range(len(answers))]
        total = torch.stack(ce_K).sum() + self.config.kl_weight * torch.stack(kl_K).sum()
        return Losses(total=total, terms=terms_of({"ce": ce_K, "kl": kl_K}), gauges={})

    def _from_others(self, answers: list[Tensor], number: int) -> Tensor:
        """How far the answer of one network is from those of the others, which stand still."""
        config, own_BC = self.config, answers[number]
        others = [other_BC.detach() for other, other_BC in enumerate(answers) if other != number]
        if config.target is PeersTarget.MEAN:
            others = [_mean_answer(others, config.temperature)]
        divergences = [
            kd_divergence_B(own_BC, other_BC, temperature=config.temperature).mean() for other_BC in others
        ]
        total = torch.stack(divergences).sum()
        return total if config.over_peers is PeersWeight.SUM else total / len(divergences)


def _mean_answer(answers: list[Tensor], temperature: float) -> Tensor:
    """BxC logits whose softmax at this temperature is the mean of all softmaxes at it."""
    log_KBC = torch.stack([(at_least_fp32(one_BC) / temperature).log_softmax(dim=-1) for one_BC in answers])
    return temperature * log_KBC.logsumexp(dim=0)
