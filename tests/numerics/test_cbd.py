"""Embeddings held to the teacher's: worked numbers, gradient, the cosine classifier, several teachers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.numerics.reference import DIGITS, Rows, logits
from trainables.config.objectives import CbdConfig
from trainables.errors import TrialFailed
from trainables.models.cosine import CosineClassifier
from trainables.objectives import CbdObjective
from trainables.objectives.cbd import embedding_distance
from trainables.signals import Losses, Signals, TeacherSignal

# B = samples in the batch, D = numbers in an embedding, C = classes
STUDENT = [[1.0, 2.0, 2.0], [0.0, 3.0, 4.0]]
TEACHER = [[2.0, 1.0, 2.0], [0.0, 4.0, 3.0]]
LABELS = torch.tensor([2, 2])


def head() -> CosineClassifier:
    classifier = CosineClassifier(3, 3).double()
    classifier.weight = torch.nn.Parameter(5.0 * torch.eye(3, dtype=torch.float64))
    return classifier


def cbd(student_BD: Tensor, teacher: Rows = TEACHER, **fields: Any) -> Losses:
    teacher_BD = logits(teacher)
    signals = Signals(
        student={"weak": head()(student_BD[:, :3])},
        teacher={"weak": TeacherSignal(torch.zeros(2, 3), torch.zeros(2), {"embedding": teacher_BD})},
        labels_B=LABELS,
        epoch=1,
        features={"weak": {"embedding": student_BD}},
    )
    return CbdObjective(CbdConfig(**fields))(signals)


def test_the_distance_of_each_sample_has_the_worked_value() -> None:
    rows = [
        embedding_distance(logits([s]), logits([t])).item() for s, t in zip(STUDENT, TEACHER, strict=True)
    ]
    assert rows == pytest.approx([0.111111, 0.040000], abs=DIGITS)
    assert embedding_distance(logits(STUDENT), logits(TEACHER)).item() == pytest.approx(0.075556, abs=DIGITS)


def test_the_objective_has_the_worked_value() -> None:
    losses = cbd(logits(STUDENT))
    assert losses.terms["ce"].item() == pytest.approx(0.355967, abs=DIGITS)
    assert losses.terms["embedding"].item() == pytest.approx(0.075556, abs=DIGITS)
    assert losses.total.item() == pytest.approx(3.235802, abs=DIGITS)


def test_the_gradient_has_the_worked_digits_the_closed_form_and_that_of_differences() -> None:
    student_BD, teacher_BD = logits(STUDENT, grad=True), logits(TEACHER)
    (found_BD,) = torch.autograd.grad(embedding_distance(student_BD, teacher_BD), student_BD)
    assert found_BD[0].tolist() == pytest.approx([-0.061728, 0.043210, -0.012346], abs=DIGITS)
    f_BD, g_BD = F.normalize(student_BD.detach(), dim=-1), F.normalize(teacher_BD, dim=-1)
    cosine_B1 = (f_BD * g_BD).sum(dim=-1, keepdim=True)
    length_B1 = student_BD.detach().norm(dim=-1, keepdim=True)
    torch.testing.assert_close(found_BD, -(g_BD - cosine_B1 * f_BD) / (2 * length_B1), rtol=1e-9, atol=1e-12)
    assert torch.autograd.gradcheck(lambda rows_BD: cbd(rows_BD).total, student_BD, rtol=1e-6, atol=1e-9)


def test_equal_directions_pay_nothing_whatever_their_length() -> None:
    scaled_BD = logits(TEACHER) * torch.tensor([[0.1], [30.0]]).double()
    assert embedding_distance(scaled_BD, logits(TEACHER)).item() == pytest.approx(0.0, abs=1e-12)


def test_two_teachers_are_their_unit_embeddings_side_by_side() -> None:
    second = [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    both_BD = torch.cat([F.normalize(logits(TEACHER), dim=-1), logits(second)], dim=-1)
    student_BD = logits([[1.0, 2.0, 2.0, 0.0, 1.0, 1.0], [0.0, 3.0, 4.0, 1.0, 0.0, 2.0]])
    rows = [embedding_distance(student_BD[i : i + 1], both_BD[i : i + 1]).item() for i in range(2)]
    assert rows == pytest.approx([0.218264, 0.251223], abs=DIGITS)
    assert embedding_distance(student_BD, both_BD).item() == pytest.approx(0.234744, abs=DIGITS)


def test_no_share_of_the_embedding_is_the_cross_entropy() -> None:
    losses = cbd(logits(STUDENT), alpha=0.0)
    assert losses.total.item() == losses.terms["ce"].item()


def test_no_gradient_reaches_the_teacher_and_zeros_have_a_bounded_one() -> None:
    teacher_BD = logits(TEACHER, grad=True)
    student_BD = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    value = embedding_distance(student_BD, teacher_BD)
    value.backward()  # type: ignore[no-untyped-call]
    assert teacher_BD.grad is None
    assert student_BD.grad is not None
    assert torch.isfinite(student_BD.grad).all()


def test_embeddings_of_a_teacher_in_fp16_change_the_loss_by_less_than_a_hundredth() -> None:
    student_BD, teacher_BD = torch.rand(2, 64, 128, generator=torch.Generator().manual_seed(0)) * 20
    kept = embedding_distance(student_BD, teacher_BD.half().float())
    assert kept.item() == pytest.approx(embedding_distance(student_BD, teacher_BD).item(), rel=1e-3)


def test_one_sample_has_its_own_distance_and_two_classes_the_scale_of_the_head() -> None:
    """Cosines of [3, 4] with the axes are 0.6 and 0.8: 20 times their difference is 4."""
    student_BD, classifier = logits([[3.0, 4.0]], grad=True), CosineClassifier(2, 2).double()
    classifier.weight = torch.nn.Parameter(torch.eye(2, dtype=torch.float64))
    signals = Signals(
        student={"weak": classifier(student_BD)},
        teacher={
            "weak": TeacherSignal(torch.zeros(1, 2), torch.zeros(1), {"embedding": logits([[4.0, 3.0]])})
        },
        labels_B=torch.tensor([1]),
        epoch=1,
        features={"weak": {"embedding": student_BD}},
    )
    losses = CbdObjective(CbdConfig())(signals)
    assert losses.terms["ce"].item() == pytest.approx(math.log1p(math.exp(-4.0)), rel=1e-12)
    assert losses.terms["embedding"].item() == pytest.approx(1 - 0.96, rel=1e-12)
    assert torch.isfinite(torch.autograd.grad(losses.total, student_BD)[0]).all()


def test_a_student_of_another_width_is_told_the_teachers() -> None:
    with pytest.raises(TrialFailed, match=r"has 3 numbers, the teacher's 2; set student.cosine_head to 2"):
        cbd(logits(STUDENT), [[1.0, 2.0], [3.0, 4.0]])


def test_a_step_without_embeddings_is_refused() -> None:
    signals = Signals({"weak": torch.zeros(2, 3)}, {"weak": TeacherSignal(*torch.zeros(2, 2, 3))}, LABELS, 1)
    with pytest.raises(ValueError, match="the signals hold no feature 'embedding'"):
        CbdObjective(CbdConfig())(signals)
