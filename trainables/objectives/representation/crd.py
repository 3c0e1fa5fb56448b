"""Contrastive representation distillation (CRD: Tian et al., ICLR 2020, arXiv 1910.10699)."""

# B = samples in the batch, N = training samples, D = numbers in a projected embedding

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from trainables.config.objective_base import EMBEDDING
from trainables.config.representation.contrast import CrdConfig, Positive
from trainables.objectives.representation.terms.composition import beside_kd
from trainables.objectives.representation.terms.heads import head_output, width_of
from trainables.objectives.representation.terms.negatives import ClassPools, Negatives
from trainables.objectives.representation.terms.noise_contrast import (
    Counts,
    Entries,
    contrast,
    enter,
    log_constant,
)
from trainables.objectives.terms.directions import directions
from trainables.signals import Losses, Setting, Signals, StatefulObjective, student_feature, teacher_feature


class CrdObjective(StatefulObjective[CrdConfig]):
    """ce_weight · CE + beta · (NCE(student) + NCE(teacher)) + kd_weight · T² KL.

    Both embeddings go through a linear layer to `dim` numbers (65,792 parameters for 256 and 256) and are
    brought to length 1. Two banks, N x dim each in fp32 (51 MB for both at 50,000 samples), keep those of
    past steps. The student's embedding of a sample is told from K samples of other classes in the teacher's
    bank, and the teacher's in the student's bank. Then the entries of the batch are renewed.
    The constants Z of the scores are those of the first batch; banks, constants and layers are in the state.

    K is `negatives`, or with `when_short: cap` what the smallest pool of other classes has, if that is less:
    the gauge `negatives` tells it. `draw: batch` gives each sample the same distribution of negatives as
    `draw: sample`, but samples of one batch are not independent. Both are inferred; `repeat` and `sample` are
    the released code's. A step holds a matrix of B x (K + the largest class + the unlabelled), at most B x N;
    with `sample`, and with `repeat` where it acts, of B x N.
    A sample that is several times in a batch leaves its last embedding in the banks, whatever the device.
    Unlabelled images are anchors too, with all other samples as negatives; see `ClassPools`.
    Of several ranks each fixes Z from its own share of the first batch, and all have the mean of log Z after
    the first epoch; an entry that two of them renewed in one epoch is their mean, shorter than 1.
    Terms: `ce`, `kd`, `crd_student`, `crd_teacher`. Gauge: `negatives`.
    """

    row_tables = ("student_bank_ND", "teacher_bank_ND")

    def __init__(self, config: CrdConfig, setting: Setting | None = None) -> None:
        """Raises:
        ValueError: there is no setting, or it does not hold labels and widths.
        TrialFailed: all samples are of one class.
        """
        super().__init__(config, setting)
        labels_N = self.setting.labels_N
        if labels_N is None:
            raise ValueError("crd draws samples of other classes; give the setting the labels of all samples")
        self.pools = ClassPools(
            labels_N,
            self.setting.n_classes,
            negatives=config.negatives,
            draw=config.draw,
            when_short=config.when_short,
        )
        self.student_layer = nn.Linear(width_of(self.setting.student_shapes, "the student"), config.dim)
        self.teacher_layer = nn.Linear(width_of(self.setting.teacher_shapes, "the teacher"), config.dim)
        bound = 1 / math.sqrt(config.dim / 3)
        self.student_bank_ND: Tensor
        self.teacher_bank_ND: Tensor
        self.log_constants_2: Tensor
        for name in self.row_tables:
            self.register_buffer(name, torch.empty(len(labels_N), config.dim).uniform_(-bound, bound))
        # Of the student's scores and of the teacher's; infinite until the first batch has fixed them.
        self.register_buffer("log_constants_2", torch.full((2,), math.inf))
        self._fixed = [False, False]

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient. The banks hold this step's embeddings then.

        Raises:
            ValueError: the signals do not say which samples these are, or hold no embedding.
        """
        config, rows_B = self.config.at(signals.epoch, signals.epochs), signals.rows_B
        if rows_B is None:
            raise ValueError("crd needs the rows of its samples; serve it signals with rows_B")
        unit_student_BD = directions(
            head_output(self.student_layer, student_feature(signals, "weak", EMBEDDING)), dim=-1
        )
        unit_teacher_BD = directions(
            head_output(self.teacher_layer, teacher_feature(signals, "weak", EMBEDDING)), dim=-1
        )
        positive_B = rows_B
        if config.positive is Positive.RELAXED:
            positive_B = self.pools.of_the_same_class(rows_B, signals.labels_B)
        drawn = self.pools.negatives(rows_B, signals.labels_B)
        student = self._contrast(unit_student_BD, self.teacher_bank_ND, positive_B, drawn, which=0)
        teacher = self._contrast(unit_teacher_BD, self.student_bank_ND, positive_B, drawn, which=1)
        enter(self.student_bank_ND, rows_B, unit_student_BD, momentum=config.momentum)
        enter(self.teacher_bank_ND, rows_B, unit_teacher_BD, momentum=config.momentum)
        own = {"crd_student": (config.beta, student), "crd_teacher": (config.beta, teacher)}
        gauges = {"negatives": student.new_full((), self.pools.count).detach()}
        return beside_kd(signals, config, own, gauges=gauges)

    def _contrast(
        self, unit_BD: Tensor, bank_ND: Tensor, positive_B: Tensor, drawn: Negatives, *, which: int
    ) -> Tensor:
        """NCE of embeddings against the other network's bank; the first batch fixes the constant."""
        # The bank changes before the backward pass, which needs the positives alone: these are copied.
        positive_BD = bank_ND.index_select(0, positive_B)
        candidates_LD = bank_ND if drawn.is_everything else bank_ND.index_select(0, drawn.rows_L)
        entries, tau = Entries(positive_BD, candidates_LD, drawn.times_BL), self.config.tau
        counts = Counts(self.pools.count, self.pools.n_samples)
        if not self._fixed[which]:
            self._fix(which, log_constant(unit_BD, entries, tau=tau, counts=counts))
        return contrast(unit_BD, entries, tau=tau, log_z=self.log_constants_2[which], counts=counts)

    def _fix(self, which: int, log_z: Tensor) -> None:
        # Asked of the device in the first step only: the state may have come with its constants.
        if not bool(self.log_constants_2[which].isfinite()):
            self.log_constants_2[which] = log_z.to(self.log_constants_2.dtype)
        self._fixed[which] = True
