"""The student's own answers of the epoch before as soft labels (PS-KD: Kim et al., ICCV 2021)."""

# B = samples in the batch, N = training samples, C = classes

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.config.objectives import Growth, PskdConfig
from trainables.objectives.terms.divergences import label_loss
from trainables.objectives.terms.row_tables import write_last
from trainables.signals import Losses, Setting, Signals, StatefulObjective
from trainables.tensors import at_least_fp32


class PskdObjective(StatefulObjective[PskdConfig]):
    """(1 - a) · CE(labels) + a · CE(the student's probabilities for this sample, a view and an epoch ago).

    a = max_trust · epoch / E, counted from 1 (Kim et al., ICCV 2021, arXiv 2006.12000); `growth: cosine`,
    half a cosine to the same end, is inferred. The probabilities are those of the training step, kept in an
    NxC table that belongs to the state of a course. A sample that has no answer yet counts with its label
    alone; one that was left out of an epoch, with the short last batch, keeps its older answer. Of one
    that is several times in a batch the last answer is kept.
    Terms: `ce`, `own`. Gauges: `trust` (a), `answered` (fraction of the batch with an answer).
    """

    row_tables = ("answers_NC", "answered_N")

    def __init__(self, config: PskdConfig, setting: Setting | None = None) -> None:
        super().__init__(config, setting)
        dtype = torch.float16 if config.half else torch.float32
        self.answers_NC: Tensor
        self.answered_N: Tensor
        answers_NC = torch.zeros(self.setting.n_samples, self.setting.n_classes, dtype=dtype)
        self.register_buffer("answers_NC", answers_NC)
        self.register_buffer("answered_N", torch.zeros(self.setting.n_samples, dtype=torch.bool))

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient. The answers of this step are kept.

        Raises:
            ValueError: the signals do not say which samples these are.
        """
        rows_B = signals.rows_B
        if rows_B is None:
            raise ValueError("pskd needs the rows of its samples; serve it signals with rows_B")
        student_BC = at_least_fp32(signals.student["weak"])
        log_BC = F.log_softmax(student_BC, dim=-1)
        trust = trust_of(self.config, signals.epoch, self.setting.epochs)
        answered_B = self.answered_N[rows_B]
        ce = label_loss(signals, "weak")
        one_hot_BC = F.one_hot(signals.labels_B, log_BC.shape[-1]).to(log_BC.dtype)
        target_BC = torch.where(answered_B[:, None], self.answers_NC[rows_B].to(log_BC.dtype), one_hot_BC)
        own = -(target_BC * log_BC).sum(dim=-1).mean()
        write_last(self.answers_NC, rows_B, log_BC.exp())
        self.answered_N[rows_B] = True
        return Losses(
            total=(1 - trust) * ce + trust * own,
            terms={"ce": ce.detach(), "own": own.detach()},
            gauges={"trust": ce.new_full((), trust), "answered": answered_B.to(ce.dtype).mean()},
        )


def trust_of(config: PskdConfig, epoch: int, epochs: int) -> float:
    """How much of the target is the own answer, in an epoch counted from 1."""
    part = epoch / epochs
    if config.growth is Growth.COSINE:
        part = (1 - math.cos(math.pi * part)) / 2
    return config.max_trust * part
