"""Other classes by rank among local predictions (Zipf's LS: Liang et al., ECCV 2022, arXiv 2207.12980)."""

# B = samples in the batch, C = classes, H, W = height and width of the feature map

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.config.objectives import ZipfConfig
from trainables.objectives.terms.divergences import label_loss, split_target
from trainables.signals import Losses, Objective, Signals
from trainables.tensors import at_least_fp32


class ZipfObjective(Objective[ZipfConfig]):
    """CE + zipf_weight · mean over samples of KL(g ‖ the student's answer among the other classes).

    The student's classifier votes at each position of its last feature map, enlarged by `upsample`. A class
    whose votes are topped by those of r - 1 classes, the label's included, gets a share of 1 / r^power in g;
    the label is left out. Votes carry no gradient. With `correct_only` the mean is over the samples that
    the student gets right, and 0 where there are none. The paper's auxiliary heads on earlier layers, which
    its defaults do not use, are left out. Terms: `ce`, `zipf`. Gauges: `kept` (with `correct_only`).
    """

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient.

        Raises:
            ValueError: the signals hold no dense logits.
        """
        config = self.config
        student_BC, labels_B = signals.student["weak"], signals.labels_B
        if "weak" not in signals.dense:
            raise ValueError("zipf needs the student's dense logits; serve it signals with them")
        ce = label_loss(signals, "weak")
        votes_BC = votes(signals.dense["weak"], upsample=config.upsample)
        divergence_B = zipf_divergence_B(student_BC, votes_BC, labels_B, power=config.power)
        gauges = {}
        if config.correct_only:
            kept_B = student_BC.detach().argmax(dim=-1) == labels_B
            zipf = torch.where(kept_B, divergence_B, 0.0).sum() / kept_B.sum().clamp(min=1)
            gauges["kept"] = kept_B.to(ce.dtype).mean()
        else:
            zipf = divergence_B.mean()
        terms = {"ce": ce.detach(), "zipf": zipf.detach()}
        return Losses(total=ce + config.zipf_weight * zipf, terms=terms, gauges=gauges)


def votes(dense_BCHW: Tensor, *, upsample: int) -> Tensor:
    """How many positions vote for each class, BxC.

    To enlarge logits is to enlarge the map they are linear in: both are weighted means of neighbours.
    """
    dense_BCHW = at_least_fp32(dense_BCHW.detach())
    if upsample > 1:
        dense_BCHW = F.interpolate(dense_BCHW, scale_factor=upsample, mode="bilinear", align_corners=False)
    winner_BP = dense_BCHW.argmax(dim=1).flatten(start_dim=1)
    votes_BC = winner_BP.new_zeros(dense_BCHW.shape[:2])
    return votes_BC.scatter_add_(1, winner_BP, torch.ones_like(winner_BP))


def zipf_target(votes_BC: Tensor, labels_B: Tensor, *, power: float) -> Tensor:
    """BxC shares by rank, 0 for the label; ties share the smaller rank."""
    ascending_BC = votes_BC.sort(dim=-1).values
    n_classes = votes_BC.shape[-1]
    # Classes with more votes: those to the right of the last with as many. CxC comparisons would not fit.
    ranks_BC = n_classes - torch.searchsorted(ascending_BC, votes_BC.contiguous(), right=True) + 1
    shares_BC = ranks_BC.to(torch.float64) ** -power
    shares_BC = shares_BC.scatter(1, labels_B[:, None], 0.0)
    return shares_BC / shares_BC.sum(dim=-1, keepdim=True)


def zipf_divergence_B(student_BC: Tensor, votes_BC: Tensor, labels_B: Tensor, *, power: float) -> Tensor:
    """KL(shares by rank ‖ student's probabilities) of each row, both among the classes but the label."""
    _, rest_BC = split_target(student_BC, labels_B, temperature=1.0)
    target_BC = zipf_target(votes_BC, labels_B, power=power).to(rest_BC.dtype)
    return F.kl_div(rest_BC, target_BC, reduction="none").sum(dim=-1)
