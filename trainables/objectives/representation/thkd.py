"""The teacher's classifier as a second head (TH-KD: Ben-Baruch et al., 2022, arXiv 2201.06945)."""

# B = samples in the batch, D = numbers in the teacher's embedding, S = in the student's, C = classes

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from trainables.config.objective_base import EMBEDDING
from trainables.config.representation.regression import Bridge, EmbeddingDistance, ThkdConfig, ThkdForm
from trainables.errors import TrialFailed
from trainables.objectives.representation.terms.distances import direction_distance_B
from trainables.objectives.representation.terms.frozen_classifier import FrozenClassifier
from trainables.objectives.representation.terms.heads import head_output, width_of
from trainables.objectives.terms.divergences import kd_divergence_B, label_loss
from trainables.signals import Losses, Setting, Signals, StatefulObjective, student_feature, teacher_feature


class ThkdObjective(StatefulObjective[ThkdConfig]):
    """The student's embedding is classified twice: by its own classifier, and by the teacher's, frozen.

    With CE and KL_T (T² KL(teacher ‖ ·), mean over samples) of both heads, and a = `share`:
    `form: released`: ce_weight · CE_own + kd_weight · KL_own + head_weight · KL_head; the defaults, 1, 1.5
    and 0.02, are those of the released command for CIFAR-100;
    `form: paper`: ce_weight · ((1-a) CE_own + a CE_head) + kd_weight · ((1-a) KL_own + a KL_head), for which
    no values are established: its 0.3 and 1.5 are inferred. At a = 0 it is KD.
    Either has embedding_weight · D(student, teacher) added where `embedding` names a distance: `cosine` is
    the mean over samples of 1 - cos, `kde` the released code's sum over the batch of the squared distance of
    directions, which grows with the batch: with that of a rank, where several ranks share one.

    The paper's networks are equally wide; a linear layer between the student's embedding and the teacher's
    classifier (`bridge`), which the distance sees too, is inferred. The student goes on with its own
    classifier alone; the paper's mixture of both at inference is left out. SH-KD, which trains another
    teacher first, is no objective: train from that teacher with this one, or any other.
    Terms: `ce`, `ce_head`, `kd`, `kd_head`, and `embedding` where there is a distance.
    """

    def __init__(self, config: ThkdConfig, setting: Setting | None = None) -> None:
        """Raises:
        ValueError: there is no setting, or it does not hold the classifier and the student's width.
        TrialFailed: the embeddings differ in width, and `bridge` is `never`.
        """
        super().__init__(config, setting)
        self.classifier = FrozenClassifier(self.setting, "thkd")
        width = width_of(self.setting.student_shapes, "the student")
        self.bridge = bridge_between(width, self.classifier.width, config.bridge)

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient.

        Raises:
            ValueError: the signals lack an embedding.
        """
        config = self.config.at(signals.epoch, signals.epochs)
        bridged_BD = head_output(self.bridge, student_feature(signals, "weak", EMBEDDING))
        own_BC, head_BC = signals.student["weak"], self.classifier(bridged_BD)
        taught_BC = signals.teacher["weak"].logits_BC
        of_head = replace(signals, student={**signals.student, "weak": head_BC})
        terms = {
            "ce": label_loss(signals, "weak"),
            "ce_head": label_loss(of_head, "weak"),
            "kd": kd_divergence_B(own_BC, taught_BC, temperature=config.temperature).mean(),
            "kd_head": kd_divergence_B(head_BC, taught_BC, temperature=config.temperature).mean(),
        }
        total = two_heads(terms, config)
        if config.embedding is not EmbeddingDistance.NONE:
            taught_BD = teacher_feature(signals, "weak", EMBEDDING)
            terms["embedding"] = embedding_distance(bridged_BD, taught_BD, config.embedding)
            total = total + config.embedding_weight * terms["embedding"]
        return Losses(total, {name: term.detach() for name, term in terms.items()}, gauges={})


def two_heads(terms: dict[str, Tensor], config: ThkdConfig) -> Tensor:
    """The weighted sum of `ce`, `ce_head`, `kd` and `kd_head` in the form that the configuration names."""
    if config.form is ThkdForm.RELEASED:
        own = config.ce_weight * terms["ce"] + config.kd_weight * terms["kd"]
        return own + config.head_weight * terms["kd_head"]
    ce = (1 - config.share) * terms["ce"] + config.share * terms["ce_head"]
    kd = (1 - config.share) * terms["kd"] + config.share * terms["kd_head"]
    return config.ce_weight * ce + config.kd_weight * kd


def embedding_distance(student_BD: Tensor, teacher_BD: Tensor, distance: EmbeddingDistance) -> Tensor:
    """Mean over samples of 1 - cos, or (`kde`) the sum over samples of 2 - 2 cos.

    Raises:
        ValueError: they differ in shape.
    """
    distance_B = direction_distance_B(student_BD, teacher_BD)
    return distance_B.sum() if distance is EmbeddingDistance.KDE else distance_B.mean() / 2


def bridge_between(n_in: int, n_out: int, bridge: Bridge) -> nn.Module:
    """A linear layer from the student's width to the teacher's, or none.

    Raises:
        TrialFailed: the widths differ, and none is wanted.
    """
    if bridge is Bridge.ALWAYS or (bridge is Bridge.AUTO and n_in != n_out):
        return nn.Linear(n_in, n_out)
    if n_in != n_out:
        raise TrialFailed(
            f"the student's embedding has {n_in} numbers, and the teacher's classifier takes {n_out}; set "
            "objective thkd's `bridge: auto`, or take a student as wide as the teacher"
        )
    return nn.Identity()
