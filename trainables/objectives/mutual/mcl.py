"""Mutual contrastive learning (MCL: Yang et al., AAAI 2022, arXiv 2104.12565)."""

# B = samples in the batch, C = classes, D = numbers in an embedding, N = training samples, K = networks

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.config.mutual.contrast import KdHearers, MclConfig, MclForm
from trainables.config.objective_base import EMBEDDING
from trainables.config.representation.contrast import NegativeDraw, Shortage
from trainables.objectives.mutual.networks import each_network, terms_of
from trainables.objectives.mutual.terms.branches import branches_for, compared_stages, seen_at_branches
from trainables.objectives.mutual.terms.contrast import (
    Columns,
    Drawn,
    MutualTerms,
    bank_columns,
    bank_scores,
    batch_columns,
    batch_scores,
    mutual_terms,
)
from trainables.objectives.mutual.terms.projections import Projections
from trainables.objectives.representation.terms.heads import width_of
from trainables.objectives.representation.terms.negatives import ClassPools
from trainables.objectives.terms.divergences import kd_divergence_B, label_loss
from trainables.signals import Losses, Setting, Signals, StatefulObjective, student_feature
from trainables.tensors import at_least_fp32


@dataclass(frozen=True)
class _Against:
    """What a batch's embeddings are compared with."""

    within: Columns
    across: Columns
    drawn: Drawn | None
    """With banks: whose entries."""


@dataclass(frozen=True)
class _Level:
    """What networks say of a batch at one depth, compared: the terms, before their weights."""

    ce_K: list[Tensor]
    kd_K: list[Tensor]
    """How far each network's logits are from the mean of all."""
    mutual: MutualTerms

    def sums(self) -> dict[str, Tensor]:
        """Each kind over all networks, or all pairs of them."""
        mutual = self.mutual
        return {
            "ce": _sum(self.ce_K),
            "kd": _sum(self.kd_K),
            "vcl": _sum(mutual.vcl_K),
            "soft_vcl": _sum(mutual.soft_vcl_K),
            "icl": mutual.icl,
            "soft_icl": mutual.soft_icl,
        }


class MclObjective(StatefulObjective[MclConfig]):
    """Σ CE + vcl_weight · VCL + soft_vcl_weight · softVCL + icl_weight · ICL + soft_icl_weight · softICL.

    Each network's embedding goes through two layers to `dim` numbers (D -> dim -> dim, ReLU) and is brought
    to length 1. VCL contrasts the embeddings of a network by their labels, ICL those of each two networks.
    The soft terms bring the softened cosines within one network, or of one direction between two, to those
    of the other, which stand still. With `kd_weight` the networks that `kd_hearers` names also learn from
    the mean of all logits, which stands still, at `temperature`.

    `form: batch` compares the images of a batch: give it two images of a class at least, as
    `training.sampling: pairs` does. One without another of its class counts as 0 in the mean, and what is
    several times in a batch is no other image than itself. Of several ranks each compares its own share.
    `form: bank` compares with entries of a bank of each network, N x dim in fp32 (656 MB each at 1.28 million
    images and 128 numbers): one of the same class and K images of other classes, and across networks the
    image's own. K is `negatives`, or what the smallest pool of other classes has, if that is less (inferred).
    The negatives of a batch come from one random order of all images (inferred); the released code draws for
    each image, with repetition. Then the entries of the batch are renewed. An entry that two ranks renewed
    in one epoch is their mean, shorter than 1.

    `layers` is inferred (after arXiv 2207.11518): each network gets a branch behind each earlier stage, made
    as its own later stages are, with weights of its own. All these losses, cross-entropy included, are added
    between the branches at the same stage, counted from the last one where networks have not equally many.
    That paper also compares unlike stages, and learns how much each pair weighs.

    Layers, banks and branches are in the state and no part of a student.
    Terms: `ce`, `kd`, `vcl`, `soft_vcl` of the student, `peer1_ce` and so on of the others; `icl` and
    `soft_icl` of all pairs; with `layers` the sums `layers_ce`, `layers_vcl` and so on.
    Gauge: `paired`, the share of images with another one of their class in the batch, or `negatives`.
    """

    def __init__(self, config: MclConfig, setting: Setting | None = None) -> None:
        """Raises:
        ValueError: there is no setting, or it does not hold labels, widths or what makes branches.
        TrialFailed: with banks, all samples are of one class; with branches, a network has one stage alone.
        """
        super().__init__(config, setting)
        shapes = (self.setting.student_shapes, *self.setting.peer_shapes)
        widths = [
            width_of(own, "the student" if number == 0 else f"peer {number}")
            for number, own in enumerate(shapes)
        ]
        self.pools = self._pools() if config.form is MclForm.BANK else None
        n_samples = self.setting.n_samples if self.pools is not None else 0
        stages = compared_stages(shapes) if config.layers else []
        # Of the networks themselves, then of their branches.
        levels = [Projections(widths, config.dim, n_samples=n_samples) for _ in (None, *stages)]
        self.levels = nn.ModuleList(levels)
        self.branches = branches_for(self.setting, stages)
        self.row_tables = tuple(
            f"levels.{number}.{name}" for number, level in enumerate(levels) for name in level.bank_names
        )
        self._levels, self._stages = levels, stages

    def _pools(self) -> ClassPools:
        if self.setting.labels_N is None:
            raise ValueError("mcl draws samples of other classes; give the setting the labels of all samples")
        return ClassPools(
            self.setting.labels_N,
            self.setting.n_classes,
            negatives=self.config.negatives,
            draw=NegativeDraw.BATCH,
            when_short=Shortage.CAP,
        )

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient. Banks hold this step's embeddings then.

        Raises:
            ValueError: no network is trained beside the student, an embedding is missing, or the signals do
                not say which samples these are.
        """
        networks, against = each_network(signals), self._against(signals)
        levels = [self._losses(self._levels[0], networks, against)]
        for projections, branches, names in zip(self._levels[1:], self.branches, self._stages, strict=True):
            seen = seen_at_branches(branches, networks, names, self.setting)
            levels.append(self._losses(projections, seen, against))
        total = _sum([self._weighed(level) for level in levels])
        own, mutual = levels[0], levels[0].mutual
        terms = terms_of({"ce": own.ce_K, "kd": own.kd_K, "vcl": mutual.vcl_K, "soft_vcl": mutual.soft_vcl_K})
        terms |= {"icl": mutual.icl.detach(), "soft_icl": mutual.soft_icl.detach()}
        if earlier := [level.sums() for level in levels[1:]]:
            terms |= {
                f"layers_{name}": _sum([sums[name].detach() for sums in earlier]) for name in own.sums()
            }
        return Losses(total=total, terms=terms, gauges=self._gauges(against, total))

    def _against(self, signals: Signals) -> _Against:
        """What the batch is compared with: itself, or drawn entries of the banks."""
        rows_B, labels_B = signals.rows_B, signals.labels_B
        if rows_B is None:
            raise ValueError("mcl needs the rows of its samples; serve it signals with rows_B")
        if self.pools is None:
            columns = batch_columns(labels_B, rows_B)
            return _Against(columns, columns, None)
        positive_B = self.pools.of_the_same_class(rows_B, labels_B)
        drawn = Drawn(rows_B, positive_B, self.pools.negatives(rows_B, labels_B), labels_B)
        return _Against(*bank_columns(drawn), drawn)

    def _losses(self, projections: Projections, networks: Sequence[Signals], against: _Against) -> _Level:
        """Of one answer of each network; the banks of its embeddings are renewed."""
        config, drawn = self.config, against.drawn
        units = projections([student_feature(network, "weak", EMBEDDING) for network in networks])
        if drawn is None:
            scores = batch_scores(units, tau=config.tau)
        else:
            scores = [
                [bank_scores(unit_BD, bank_ND, drawn, tau=config.tau) for bank_ND in projections.banks]
                for unit_BD in units
            ]
            projections.enter(drawn.rows_B, units, momentum=config.momentum)
        return _Level(
            ce_K=[label_loss(network, "weak") for network in networks],
            kd_K=_gaps_to_mean([network.student["weak"] for network in networks], config.temperature),
            mutual=mutual_terms(scores, against.within, against.across, temperature=config.temperature),
        )

    def _weighed(self, level: _Level) -> Tensor:
        config, sums = self.config, level.sums()
        total = (
            sums["ce"]
            + config.vcl_weight * sums["vcl"]
            + config.soft_vcl_weight * sums["soft_vcl"]
            + config.icl_weight * sums["icl"]
            + config.soft_icl_weight * sums["soft_icl"]
        )
        if config.kd_weight == 0:
            return total
        both_or_all = len(level.kd_K) == 2 or config.kd_hearers is KdHearers.ALL
        return total + config.kd_weight * _sum(level.kd_K if both_or_all else level.kd_K[-1:])

    def _gauges(self, against: _Against, like: Tensor) -> dict[str, Tensor]:
        if self.pools is not None:
            return {"negatives": like.new_full((), self.pools.count).detach()}
        return {"paired": against.within.is_positive_BM.any(dim=-1).to(like.dtype).mean()}


def _gaps_to_mean(answers: Sequence[Tensor], temperature: float) -> list[Tensor]:
    """T² · KL(mean of all logits ‖ own) of each network, mean over samples; the mean stands still."""
    mean_BC = torch.stack([at_least_fp32(one_BC.detach()) for one_BC in answers]).mean(dim=0)
    return [kd_divergence_B(one_BC, mean_BC, temperature=temperature).mean() for one_BC in answers]


def _sum(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).sum()
