"""Embeddings held to the teacher's, for long-tailed data (CBD: Iscen et al., BMVC 2021, arXiv 2104.05279)."""

# B = samples in the batch, D = numbers in an embedding

from __future__ import annotations

from torch import Tensor

from trainables.config.objective_base import EMBEDDING
from trainables.config.objectives import CbdConfig
from trainables.errors import TrialFailed
from trainables.objectives.terms.directions import directions
from trainables.objectives.terms.divergences import label_loss
from trainables.signals import Losses, Objective, Signals, student_feature, teacher_feature


class CbdObjective(Objective[CbdConfig]):
    """(1 - alpha) · CE + alpha · beta · mean over samples of 1 - cosine(student, teacher) of the embeddings.

    The student has a cosine head (`student.cosine_head`, as wide as the teacher's embedding), whose scale of
    20 is in the cross-entropy already. The paper trains it with `training.sampling: class_balanced`, on a
    teacher trained without. One teacher; the paper's ensembles of several are left out.
    Terms: `ce`, `embedding`.
    """

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient.

        Raises:
            ValueError: the signals hold no embedding of student or teacher.
            TrialFailed: the student's embedding is not as wide as the teacher's.
        """
        config = self.config.at(signals.epoch, signals.epochs)
        given_BD = student_feature(signals, "weak", EMBEDDING)
        taught_BD = teacher_feature(signals, "weak", EMBEDDING)
        ce = label_loss(signals, "weak")
        embedding = embedding_distance(given_BD, taught_BD)
        total = (1 - config.alpha) * ce + config.alpha * config.beta * embedding
        return Losses(total=total, terms={"ce": ce.detach(), "embedding": embedding.detach()}, gauges={})


def embedding_distance(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """1 - cosine of the embeddings of each sample, mean over samples.

    Raises:
        TrialFailed: they differ in width.
    """
    if student_BD.shape != teacher_BD.shape:
        raise TrialFailed(
            f"the student's embedding has {student_BD.shape[-1]} numbers, the teacher's "
            f"{teacher_BD.shape[-1]}; set student.cosine_head to {teacher_BD.shape[-1]}"
        )
    cosine_B = (directions(student_BD, dim=-1) * directions(teacher_BD.detach(), dim=-1)).sum(dim=-1)
    return (1 - cosine_B).mean()
