"""The two views of the worked numbers as CRLD is given them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tests.numerics.reference import (
    LABELS,
    STRONG_STUDENT,
    STRONG_TEACHER,
    WEAK_STUDENT,
    WEAK_TEACHER,
    logits,
)
from trainables.config import CrldConfig, Gate
from trainables.objectives import CrldObjective
from trainables.objectives.terms.divergences import confidence_B
from trainables.signals import Losses, Signals, TeacherSignal

# B = samples in the batch, C = classes


def teacher_of(logits_BC: Tensor) -> TeacherSignal:
    return TeacherSignal(logits_BC=logits_BC, confidence_B=confidence_B(logits_BC).float())


@dataclass(frozen=True)
class Views:
    """The four logit tensors and the labels of one step."""

    weak_student_BC: Tensor
    strong_student_BC: Tensor
    weak_teacher_BC: Tensor
    strong_teacher_BC: Tensor
    labels_B: Tensor

    def signals(self) -> Signals:
        return Signals(
            student={"weak": self.weak_student_BC, "strong": self.strong_student_BC},
            teacher={"weak": teacher_of(self.weak_teacher_BC), "strong": teacher_of(self.strong_teacher_BC)},
            labels_B=self.labels_B,
            epoch=1,
        )


def fixture(*, grad: bool = False) -> Views:
    return Views(
        weak_student_BC=logits(WEAK_STUDENT, grad=grad),
        strong_student_BC=logits(STRONG_STUDENT, grad=grad),
        weak_teacher_BC=logits(WEAK_TEACHER),
        strong_teacher_BC=logits(STRONG_TEACHER),
        labels_B=torch.tensor(LABELS),
    )


def crld(views: Views, weak_threshold: float, strong_threshold: float, gate: Gate = Gate.RELEASED) -> Losses:
    config = CrldConfig(weak_threshold=weak_threshold, strong_threshold=strong_threshold, gate=gate)
    return CrldObjective(config)(views.signals())
