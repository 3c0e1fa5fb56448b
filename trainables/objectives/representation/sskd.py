"""Likeness of turned images to upright ones as the teacher's head sees it (SSKD: Xu et al., ECCV 2020)."""

# B = images, R = 4 B rows of all turns, A = 3 B rows of turned images, N = B rows of upright ones
# C = classes, D = numbers in an embedding

from __future__ import annotations

import torch
from torch import Tensor

from trainables.config.objective_base import EMBEDDING, ROTATED
from trainables.config.representation.preparation import SS_HEAD
from trainables.config.representation.rotations import SskdConfig
from trainables.objectives.representation.terms.composition import beside_kd
from trainables.objectives.representation.terms.heads import width_of
from trainables.objectives.representation.terms.rotations import (
    TURNS,
    cosines_AN,
    images_of_turned,
    in_rows,
    similarity_divergence_A,
    turned_and_upright,
)
from trainables.objectives.representation.terms.selection import kept_A, mean_of_kept, rank_A
from trainables.objectives.representation.terms.self_supervision import SsHead
from trainables.objectives.terms.divergences import kd_divergence_B
from trainables.signals import Losses, Setting, Signals, StatefulObjective, student_feature, teacher_feature


class SskdObjective(StatefulObjective[SskdConfig]):
    """ce_weight · CE + kd_weight · KL of upright images, + tf_weight · KL of turned ones + ss_weight · SS.

    (arXiv 2006.07114, stage 2; all KL are T² KL(teacher ‖ student), mean over rows.) SS compares the softened
    cosines of each turned image to the upright ones: the student's of its head on its embedding, trained with
    it (`SsHead`), the teacher's of the head that it was prepared with. Of the turned images, those count that
    the teacher gets right, and of the others a part, the least wrong first: by the place of the own image
    among its cosines (`ratio_ss`), or of the label among its logits (`ratio_tf`). Of equal places the first
    rows of the batch count. A cache in fp16 may decide near ties otherwise than one in fp32.

    In the paper each turn has a crop of its own, and all four share one flip; here all turns are of one crop,
    as the banks show them. The batch is that of a rank: its upright images are those compared with, and those
    that count are chosen among its turned ones. With one image SS is 0.
    Terms: `ce`, `kd`, `tf`, `ss`. Gauges: `kept_tf`, `kept_ss`, the parts of the turned images that count.
    """

    def __init__(self, config: SskdConfig, setting: Setting | None = None) -> None:
        """Raises:
        ValueError: there is no setting, or it does not hold the student's width.
        """
        super().__init__(config, setting)
        self.head = SsHead(width_of(self.setting.student_shapes, "the student"))

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient.

        Raises:
            ValueError: the signals hold no embedding of the student, or nothing of the teacher's head.
        """
        config = self.config.at(signals.epoch, signals.epochs)
        given_RD = self.head(in_rows({bank: student_feature(signals, bank, EMBEDDING) for bank in ROTATED}))
        taught_RD = in_rows({bank: teacher_feature(signals, bank, SS_HEAD) for bank in ROTATED})
        student_AC, _ = turned_and_upright(in_rows(signals.student))
        teacher_AC, _ = turned_and_upright(
            in_rows({bank: signals.teacher[bank].logits_BC.detach() for bank in ROTATED})
        )
        answers_A = kd_divergence_B(student_AC, teacher_AC, temperature=config.temperature)
        is_told_A = told_answers_A(teacher_AC, signals.labels_B, ratio=config.ratio_tf)
        likeness_A = similarity_divergence_A(given_RD, taught_RD, temperature=config.ss_temperature)
        is_like_A = told_likeness_A(taught_RD, ratio=config.ratio_ss)
        own = {
            "tf": (config.tf_weight, mean_of_kept(answers_A, is_told_A)),
            "ss": (config.ss_weight, config.ss_temperature**2 * mean_of_kept(likeness_A, is_like_A)),
        }
        gauges = {"kept_tf": is_told_A.float().mean(), "kept_ss": is_like_A.float().mean()}
        return beside_kd(signals, config, own, gauges=gauges)


def told_likeness_A(teacher_RD: Tensor, *, ratio: float) -> Tensor:
    """bool: the turned rows whose likeness to upright ones is passed on; `teacher_RD` is of its head."""
    cosines = cosines_AN(teacher_RD.detach())
    return kept_A(rank_A(cosines, images_of_turned(cosines.shape[1], cosines.device)), ratio)


def told_answers_A(teacher_AC: Tensor, labels_B: Tensor, *, ratio: float) -> Tensor:
    """bool: the turned rows whose logits are passed on; with a ratio of 1 all, whatever the labels are."""
    if ratio == 1:
        return torch.ones(len(teacher_AC), dtype=torch.bool, device=teacher_AC.device)
    return kept_A(rank_A(teacher_AC, labels_B.repeat_interleave(TURNS - 1)), ratio)
