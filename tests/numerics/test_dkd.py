"""Decoupled distillation: worked numbers, the identity with KD, gradients, extremes and two classes."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from tests.numerics.reference import LABELS, THREE_LABELS, THREE_STUDENT, THREE_TEACHER, logits
from tests.numerics.reference import WEAK_STUDENT as STUDENT
from tests.numerics.reference import WEAK_TEACHER as TEACHER
from trainables.config import DkdConfig
from trainables.objectives import DkdObjective
from trainables.objectives.terms.divergences import confidence_B, dkd_parts_B, kd_divergence_B
from trainables.signals import Losses, Signals, TeacherSignal

# B = samples in the batch, C = classes

CE: Final = 0.826856


def parts_of_fixture(temperature: float) -> tuple[Tensor, Tensor]:
    return dkd_parts_B(logits(STUDENT), logits(TEACHER), torch.tensor(LABELS), temperature=temperature)


def dkd_of_fixture(config: DkdConfig, epoch: int) -> Losses:
    teacher_BC = logits(TEACHER)
    signals = Signals(
        student={"weak": logits(STUDENT)},
        teacher={"weak": TeacherSignal(logits_BC=teacher_BC, confidence_B=confidence_B(teacher_BC))},
        labels_B=torch.tensor(LABELS),
        epoch=epoch,
    )
    return DkdObjective(config)(signals)


def dkd_by_loops(
    student: NDArray[np.float64], teacher: NDArray[np.float64], labels: list[int], temperature: float
) -> list[tuple[float, float]]:
    values = []
    for student_row, teacher_row, label in zip(student.tolist(), teacher.tolist(), labels, strict=True):
        exp_student = [math.exp(z / temperature) for z in student_row]
        exp_teacher = [math.exp(z / temperature) for z in teacher_row]
        others = [c for c in range(len(student_row)) if c != label]
        rest_student = math.fsum(exp_student[c] for c in others)
        rest_teacher = math.fsum(exp_teacher[c] for c in others)
        a = exp_student[label] / (exp_student[label] + rest_student)
        b = exp_teacher[label] / (exp_teacher[label] + rest_teacher)
        tckd = b * math.log(b / a) + (1 - b) * math.log((1 - b) / (1 - a))
        nckd = 0.0
        for c in others:
            p_student, p_teacher = exp_student[c] / rest_student, exp_teacher[c] / rest_teacher
            nckd += p_teacher * math.log(p_teacher / p_student)
        values.append((temperature**2 * tckd, temperature**2 * nckd))
    return values


@pytest.mark.parametrize(
    ("temperature", "tckd", "nckd", "beta", "total"),
    [(4.0, 0.243593, 0.156154, 8.0, 1.492829), (1.0, 0.176674, 0.105242, 0.5, 0.229296)],
)
def test_the_parts_have_the_worked_values(
    temperature: float, tckd: float, nckd: float, beta: float, total: float
) -> None:
    tckd_B, nckd_B = parts_of_fixture(temperature)
    assert tckd_B.mean().item() == pytest.approx(tckd, abs=6e-7)
    assert nckd_B.mean().item() == pytest.approx(nckd, abs=6e-7)
    assert (tckd_B + beta * nckd_B).mean().item() == pytest.approx(total, abs=6e-7)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_the_parts_add_up_to_kd_row_by_row(temperature: float) -> None:
    student_BC, teacher_BC = logits(THREE_STUDENT), logits(THREE_TEACHER)
    labels_B = torch.tensor(THREE_LABELS)
    tckd_B, nckd_B = dkd_parts_B(student_BC, teacher_BC, labels_B, temperature=temperature)
    label_share_B = (teacher_BC / temperature).softmax(dim=-1).gather(-1, labels_B[:, None]).squeeze(-1)
    torch.testing.assert_close(
        tckd_B + (1 - label_share_B) * nckd_B,
        kd_divergence_B(student_BC, teacher_BC, temperature=temperature),
        rtol=1e-12,
        atol=1e-14,
    )


def test_the_parts_of_the_fixture_add_up_to_the_worked_kd_value() -> None:
    tckd_B, nckd_B = parts_of_fixture(4.0)
    label_share_B = torch.stack([(logits(TEACHER) / 4).softmax(dim=-1)[i, y] for i, y in enumerate(LABELS)])
    assert (tckd_B + (1 - label_share_B) * nckd_B).mean().item() == pytest.approx(0.339521, abs=6e-7)


def test_the_non_target_gradient_has_the_worked_digits_and_the_closed_form() -> None:
    student_BC, labels_B = logits(STUDENT, grad=True), torch.tensor(LABELS)
    _, nckd_B = dkd_parts_B(student_BC, logits(TEACHER), labels_B, temperature=4.0)
    (gradient_BC,) = torch.autograd.grad(nckd_B.mean(), student_BC)
    assert gradient_BC[0].tolist() == pytest.approx([0, -0.086945, -0.067713, 0.154658], abs=6e-7)
    is_target_BC = torch.nn.functional.one_hot(labels_B, 4).bool()
    assert gradient_BC[is_target_BC].tolist() == [0.0, 0.0]
    torch.testing.assert_close(
        gradient_BC.sum(dim=-1), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-15
    )
    rest_student_BC = (student_BC.detach() / 4).masked_fill(is_target_BC, -math.inf).softmax(dim=-1)
    rest_teacher_BC = (logits(TEACHER) / 4).masked_fill(is_target_BC, -math.inf).softmax(dim=-1)
    torch.testing.assert_close(
        gradient_BC, (4 / 2) * (rest_student_BC - rest_teacher_BC), rtol=1e-11, atol=1e-15
    )


def test_the_target_gradient_has_the_closed_form() -> None:
    student_BC, teacher_BC, labels_B = logits(STUDENT, grad=True), logits(TEACHER), torch.tensor(LABELS)
    tckd_B, _ = dkd_parts_B(student_BC, teacher_BC, labels_B, temperature=4.0)
    (gradient_BC,) = torch.autograd.grad(tckd_B.mean(), student_BC)
    q_student_BC = (student_BC.detach() / 4).softmax(dim=-1)
    q_teacher_BC = (teacher_BC / 4).softmax(dim=-1)
    for row, label in enumerate(LABELS):
        a, b = q_student_BC[row, label], q_teacher_BC[row, label]
        expected_C = (a - b) * -q_student_BC[row] / (1 - a)  # d(log-odds)/dz of the others, times a - b
        expected_C[label] = a - b
        torch.testing.assert_close(gradient_BC[row], (4 / 2) * expected_C, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_each_part_s_gradient_agrees_with_finite_differences(part: int, temperature: float) -> None:
    teacher_BC, labels_B = logits(THREE_TEACHER), torch.tensor(THREE_LABELS)

    def mean_part(student_BC: Tensor) -> Tensor:
        return dkd_parts_B(student_BC, teacher_BC, labels_B, temperature=temperature)[part].mean()

    assert torch.autograd.gradcheck(mean_part, logits(THREE_STUDENT, grad=True), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("epoch", "share"), [(1, 0.05), (10, 0.5), (20, 1.0), (21, 1.0), (240, 1.0)])
def test_the_warm_up_scales_the_distillation_part_alone(epoch: int, share: float) -> None:
    losses = dkd_of_fixture(DkdConfig(), epoch)
    assert losses.gauges["warmup"].item() == pytest.approx(share)
    assert losses.total.item() == pytest.approx(CE + share * 1.492829, abs=2e-6)
    assert {name: term.item() for name, term in losses.terms.items()} == pytest.approx(
        {"ce": CE, "tckd": 0.243593, "nckd": 0.156154}, abs=6e-7
    )


def test_a_warm_up_of_one_epoch_is_none() -> None:
    config = DkdConfig(temperature=1.0, beta=0.5, warmup_epochs=1, ce_weight=0.0)
    assert dkd_of_fixture(config, epoch=1).total.item() == pytest.approx(0.229296, abs=6e-7)


def test_alpha_weighs_the_target_part_and_beta_the_other() -> None:
    config = DkdConfig(alpha=3.0, beta=0.25, warmup_epochs=1, ce_weight=2.0)
    expected = 2 * CE + 3 * 0.243593 + 0.25 * 0.156154
    assert dkd_of_fixture(config, epoch=1).total.item() == pytest.approx(expected, abs=4e-6)


def test_equal_student_and_teacher_give_exactly_zero_and_no_gradient() -> None:
    student_BC = logits(TEACHER, grad=True)
    tckd_B, nckd_B = dkd_parts_B(student_BC, logits(TEACHER), torch.tensor(LABELS), temperature=4.0)
    assert tckd_B.tolist() == [0.0, 0.0]
    assert nckd_B.tolist() == [0.0, 0.0]
    (gradient_BC,) = torch.autograd.grad((tckd_B + 8 * nckd_B).mean(), student_BC)
    torch.testing.assert_close(gradient_BC, torch.zeros_like(gradient_BC), rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_two_classes_have_no_non_target_part(dtype: torch.dtype) -> None:
    student_BC = torch.tensor([[1.0, -2.0], [60.0, -60.0], [0.0, 0.0]], dtype=dtype, requires_grad=True)
    teacher_BC = torch.tensor([[-3.0, 4.0], [-60.0, 60.0], [1.0, 0.5]], dtype=dtype)
    tckd_B, nckd_B = dkd_parts_B(student_BC, teacher_BC, torch.tensor([0, 1, 1]), temperature=1.0)
    assert nckd_B.tolist() == [0.0, 0.0, 0.0]
    torch.testing.assert_close(tckd_B, kd_divergence_B(student_BC, teacher_BC, temperature=1.0))
    (non_target_BC,) = torch.autograd.grad(nckd_B.sum(), student_BC, retain_graph=True)
    assert torch.equal(non_target_BC, torch.zeros_like(non_target_BC))
    (target_BC,) = torch.autograd.grad(tckd_B.sum(), student_BC)
    assert torch.isfinite(target_BC).all()


@pytest.mark.parametrize("gap", [60.0, 500.0, 5000.0])
def test_a_student_sure_of_the_label_gets_a_finite_loss_and_gradient(gap: float) -> None:
    # In fp32 1 - a is 0 from a gap of 17 on; the log-odds keep it: TCKD = b log b + (1-b)(log(1-b) + gap).
    student_BC = torch.tensor([[gap, 0.0, 0.0]], requires_grad=True)
    teacher_BC = torch.tensor([[0.0, 0.0, 0.0]])
    tckd_B, nckd_B = dkd_parts_B(student_BC, teacher_BC, torch.tensor([0]), temperature=1.0)
    b = 1 / 3
    expected = b * math.log(b) + (1 - b) * (math.log(1 - b) + gap - math.log(2))
    assert tckd_B.item() == pytest.approx(expected, rel=1e-6)
    assert nckd_B.item() == 0.0
    (gradient_BC,) = torch.autograd.grad(tckd_B.sum(), student_BC)
    torch.testing.assert_close(gradient_BC, torch.tensor([[2 / 3, -1 / 3, -1 / 3]]))


def test_a_teacher_of_another_shape_is_refused_rather_than_broadcast() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        dkd_parts_B(logits(STUDENT), torch.zeros(1, 4), torch.tensor(LABELS), temperature=4.0)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 5),
    classes=st.integers(2, 12),
    temperature=st.floats(1, 20),
)
def test_the_parts_equal_the_formulas_in_plain_loops(
    seed: int, rows: int, classes: int, temperature: float
) -> None:
    draw = np.random.default_rng(seed)
    student, teacher = draw.normal(scale=3.0, size=(2, rows, classes))
    labels = draw.integers(classes, size=rows).tolist()
    tckd_B, nckd_B = dkd_parts_B(
        torch.from_numpy(student), torch.from_numpy(teacher), torch.tensor(labels), temperature=temperature
    )
    for tckd, nckd, (expected_tckd, expected_nckd) in zip(
        tckd_B.tolist(), nckd_B.tolist(), dkd_by_loops(student, teacher, labels, temperature), strict=True
    ):
        assert tckd == pytest.approx(expected_tckd, rel=1e-8, abs=1e-10)
        assert nckd == pytest.approx(expected_nckd, rel=1e-8, abs=1e-10)


@settings(max_examples=40, deadline=None)
@given(
    student_shifts=st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
    teacher_shifts=st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
    order=st.permutations(range(4)),
)
def test_row_constants_and_a_joint_permutation_of_classes_change_nothing(
    student_shifts: tuple[float, float], teacher_shifts: tuple[float, float], order: list[int]
) -> None:
    student_BC = logits(STUDENT) + torch.tensor(student_shifts, dtype=torch.float64)[:, None]
    teacher_BC = logits(TEACHER) + torch.tensor(teacher_shifts, dtype=torch.float64)[:, None]
    moved_labels_B = torch.tensor([order.index(label) for label in LABELS])
    moved = dkd_parts_B(student_BC[:, order], teacher_BC[:, order], moved_labels_B, temperature=4.0)
    torch.testing.assert_close(moved, parts_of_fixture(4.0), rtol=1e-11, atol=1e-12)
