"""Embeddings of turned images on three levels (MLKD: Ding et al., 2020, arXiv 2012.00573)."""

# B = images, R = 4 B rows of all turns, D = numbers in an embedding

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.config.objective_base import EMBEDDING, ROTATED
from trainables.config.representation.rotations import MlkdConfig
from trainables.objectives.representation.terms.composition import beside_kd
from trainables.objectives.representation.terms.distances import direction_distance_B
from trainables.objectives.representation.terms.heads import BatchNorm, head_output, width_of
from trainables.objectives.representation.terms.rotations import TURNS, in_rows, similarity_divergence_A
from trainables.objectives.representation.terms.supervised_contrast import supervised_contrast
from trainables.signals import Losses, Setting, Signals, StatefulObjective, student_feature, teacher_feature


class MlkdObjective(StatefulObjective[MlkdConfig]):
    """ce_weight · CE of upright images + the weighted sum of three terms on the embeddings of four turns.

    `individual`: mean over rows of 2 - 2 cos(m(student), teacher), with the head m of two linear layers,
    dS to `width_factor` dT to dT, BN and ReLU between them. `relation`: mean over turned rows of the KL of
    softened cosines to the upright images, without T² (`similarity_divergence_A`); the student's are of a
    head dS to dS to dS of the same form, the teacher's of its embedding. `category`: `supervised_contrast` of
    both networks' embeddings, each through a linear layer to `dim`; the teacher's layer is trained too.

    These are the second version's terms and its released code; that they are the first version's individual,
    relational and categorical similarity is inferred. In the release each turn has a crop of its own, and all
    four share one flip; here all turns are of one crop, as the banks show them. `kd_weight` is inferred.
    Unlabelled images without a label to stand in are each a class of their own in `category`.
    The batch, whose images `relation` and `category` compare with each other, is that of a rank.
    Terms: `ce`, `kd`, `individual`, `relation`, `category`.
    """

    def __init__(self, config: MlkdConfig, setting: Setting | None = None) -> None:
        """Raises:
        ValueError: there is no setting, or it does not hold the widths.
        """
        super().__init__(config, setting)
        student = width_of(self.setting.student_shapes, "the student")
        teacher = width_of(self.setting.teacher_shapes, "the teacher")
        self.individual_head = _bent(student, config.width_factor * teacher, teacher)
        self.relation_head = _bent(student, student, student)
        self.student_projection = nn.Linear(student, config.dim)
        self.teacher_projection = nn.Linear(teacher, config.dim)

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient.

        Raises:
            ValueError: the signals hold no embedding of student or teacher.
        """
        config = self.config.at(signals.epoch, signals.epochs)
        given_RD = in_rows({bank: student_feature(signals, bank, EMBEDDING) for bank in ROTATED})
        taught_RD = in_rows({bank: teacher_feature(signals, bank, EMBEDDING) for bank in ROTATED})
        individual = direction_distance_B(head_output(self.individual_head, given_RD), taught_RD).mean()
        relation = similarity_divergence_A(
            head_output(self.relation_head, given_RD), taught_RD, temperature=config.relation_temperature
        ).mean()
        category = supervised_contrast(
            torch.cat(
                [
                    head_output(self.student_projection, given_RD),
                    head_output(self.teacher_projection, taught_RD),
                ]
            ),
            _classes_B(signals.labels_B).repeat_interleave(TURNS).repeat(2),
            temperature=config.category_temperature,
        )
        own = {
            "individual": (config.individual_weight, individual),
            "relation": (config.relation_weight, relation),
            "category": (config.category_weight, category),
        }
        return beside_kd(signals, config, own)


def _classes_B(labels_B: Tensor) -> Tensor:
    """The labels; of each image without one, a class of its own."""
    own_B = -1 - torch.arange(len(labels_B), device=labels_B.device)
    return torch.where(labels_B < 0, own_B, labels_B)


def _bent(n_in: int, hidden: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, hidden), BatchNorm(hidden), nn.ReLU(), nn.Linear(hidden, n_out))
