"""Neighbours as probable as the teacher's: worked numbers, what leaves them, gradients, rows of zeros."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.numerics.representation.relation_rows import S3, T3, drawn, rotation, signals_with
from trainables.config import KdConfig
from trainables.config.objectives import PktConfig
from trainables.objectives import KdObjective, PktObjective
from trainables.objectives.representation.pkt import neighbour_divergence
from trainables.signals import Labelling

# B = samples in the batch, D = numbers in an embedding


def test_the_divergence_has_the_worked_values_and_is_not_symmetric() -> None:
    """The reference prints 7.200603 for the first: with the released code's 1e-7 beside each length."""
    assert neighbour_divergence(S3, T3).item() == pytest.approx(2.400201e-4, abs=6e-11)
    assert 30_000 * neighbour_divergence(S3, T3).item() == pytest.approx(7.200603, abs=6e-7)
    assert neighbour_divergence(T3, S3).item() == pytest.approx(2.407222e-4, abs=6e-11)


def test_it_is_the_definition_written_out() -> None:
    student_BD, teacher_BD = drawn(0, 4, 3), drawn(1, 4, 6)

    def probabilities(rows_BD: Tensor) -> list[list[float]]:
        rows = [row_D / row_D.norm() for row_D in rows_BD]
        near = [[(one.dot(other).item() + 1) / 2 for other in rows] for one in rows]
        return [[value / sum(line) for value in line] for line in near]

    pairs = zip(probabilities(student_BD), probabilities(teacher_BD), strict=True)
    total = sum(
        p * math.log((p + 1e-7) / (q + 1e-7)) for qs, ps in pairs for q, p in zip(qs, ps, strict=True)
    )
    assert neighbour_divergence(student_BD, teacher_BD).item() == pytest.approx(total / 16, rel=1e-5)


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_rotations_and_lengths_of_the_rows_leave_it_and_shifts_do_not(side: str) -> None:
    student_BD, teacher_BD = drawn(0, 6, 4), drawn(1, 6, 5)
    lengths_B1 = torch.logspace(0, 4, 6, dtype=torch.float64)[:, None]

    def changed(rows_BD: Tensor, turned: bool) -> Tensor:
        return lengths_B1 * rows_BD @ rotation(2, rows_BD.shape[-1]) if turned else rows_BD + 1

    def loss(turned: bool) -> Tensor:
        if side == "student":
            return neighbour_divergence(changed(student_BD, turned), teacher_BD)
        return neighbour_divergence(student_BD, changed(teacher_BD, turned))

    expected = neighbour_divergence(student_BD, teacher_BD)
    torch.testing.assert_close(loss(turned=True), expected, rtol=1e-5, atol=0)
    assert abs(loss(turned=False).item() / expected.item() - 1) > 0.01


def test_equal_cosines_pay_nothing_and_others_pay() -> None:
    teacher_BD = drawn(1, 6, 5)
    wider_BD = torch.cat([teacher_BD @ rotation(2, 5), torch.zeros(6, 3).double()], dim=1)
    assert neighbour_divergence(3 * wider_BD, teacher_BD).item() == pytest.approx(0.0, abs=1e-12)
    assert neighbour_divergence(drawn(0, 6, 4), teacher_BD).item() > 1e-3


def test_the_order_of_the_batch_does_not_matter() -> None:
    student_BD, teacher_BD, order = drawn(0, 7, 4), drawn(1, 7, 5), torch.tensor([3, 1, 6, 0, 2, 5, 4])
    torch.testing.assert_close(
        neighbour_divergence(student_BD[order], teacher_BD[order]),
        neighbour_divergence(student_BD, teacher_BD),
    )


def test_its_gradient_is_that_of_differences_and_none_reaches_the_teacher() -> None:
    student_BD, teacher_BD = drawn(0, 5, 3).requires_grad_(), drawn(1, 5, 4).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda rows_BD: 1e3 * neighbour_divergence(rows_BD, teacher_BD), student_BD, rtol=1e-6, atol=1e-8
    )
    neighbour_divergence(student_BD, teacher_BD).backward()  # type: ignore[no-untyped-call]
    assert teacher_BD.grad is None


def test_a_row_of_zeros_is_as_near_to_all_samples_and_gets_no_gradient() -> None:
    student_BD = S3.clone()
    student_BD[1] = 0.0
    student_BD.requires_grad_()
    loss = neighbour_divergence(student_BD, S3)
    # By hand: rows [1, 0], 0 and [1, 1] against [1, 0], [0, 2] and [1, 1].
    half, root = 0.5, (1 + 0.5**0.5) / 2
    student = [[1, half, root], [half, half, half], [root, half, 1]]
    teacher = [[1, half, root], [half, 1, root], [root, root, 1]]
    expected = 0.0
    for qs, ps in zip(student, teacher, strict=True):
        for q, p in zip(qs, ps, strict=True):
            expected += p / sum(ps) * math.log((p / sum(ps) + 1e-7) / (q / sum(qs) + 1e-7)) / 9
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    (gradient_BD,) = torch.autograd.grad(loss, student_BD)
    assert torch.equal(gradient_BD[1], torch.zeros(2).double())
    assert gradient_BD.abs().sum() > 0
    assert torch.isfinite(neighbour_divergence(S3, torch.zeros_like(T3)))


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("value", [0.0, 1.0, 1e-30, -1.0])
def test_flat_embeddings_and_single_samples_give_finite_losses_and_gradients(rows: int, value: float) -> None:
    student_BD = torch.full((rows, 4), value, requires_grad=True)
    signals = signals_with({"embedding": student_BD}, {"embedding": torch.ones(rows, 3)})
    losses = PktObjective(PktConfig())(signals)
    (gradient_BD,) = torch.autograd.grad(losses.total, student_BD)
    assert torch.isfinite(losses.total)
    assert torch.isfinite(gradient_BD).all()


def test_opposite_embeddings_have_a_finite_loss_and_gradient() -> None:
    """A probability of 0, which rounding may take below it."""
    rows_BD = drawn(0, 1, 33).float() * torch.tensor([[1.0], [-1.0], [3.0]])
    student_BD = rows_BD.clone().requires_grad_()
    loss = neighbour_divergence(student_BD, drawn(1, 3, 5).float())
    (gradient_BD,) = torch.autograd.grad(loss, student_BD)
    assert torch.isfinite(gradient_BD).all()
    assert torch.isfinite(neighbour_divergence(drawn(1, 3, 5).float(), rows_BD))


def test_the_objective_adds_labels_soft_targets_and_the_weighted_divergence() -> None:
    student_BD, teacher_BD = drawn(0, 4, 3), drawn(1, 4, 5)
    signals = signals_with({"embedding": student_BD}, {"embedding": teacher_BD})
    losses = PktObjective(PktConfig(kd_weight=1.0))(signals)
    kd = KdObjective(KdConfig(ce_weight=1.0, kd_weight=1.0))(signals).total.item()
    neighbours = neighbour_divergence(student_BD, teacher_BD).item()
    assert losses.terms["neighbours"].item() == neighbours
    assert losses.total.item() == pytest.approx(kd + 30_000 * neighbours, rel=1e-12)


def test_it_is_computed_in_fp32_inside_autocast_and_near_float64() -> None:
    student_BD, teacher_BD = drawn(0, 32, 8, scale=60).float(), drawn(1, 32, 8, scale=60).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = neighbour_divergence(student_BD, teacher_BD)
    assert inside.dtype is torch.float32
    assert inside.item() == neighbour_divergence(student_BD, teacher_BD).item()
    exact = neighbour_divergence(student_BD.double(), teacher_BD.double()).item()
    assert inside.item() == pytest.approx(exact, rel=1e-4)


def test_a_teacher_in_fp16_changes_the_loss_by_less_than_a_hundredth() -> None:
    student_BD, teacher_BD = drawn(0, 64, 32).float(), drawn(1, 64, 48, scale=20).float()
    kept = neighbour_divergence(student_BD, teacher_BD.half().float()).item()
    assert kept == pytest.approx(neighbour_divergence(student_BD, teacher_BD).item(), rel=1e-2)


def test_unlabelled_samples_are_compared_and_have_no_part_in_the_labels() -> None:
    student_BD, teacher_BD = drawn(0, 4, 3), drawn(1, 4, 5)
    features = {"embedding": student_BD}, {"embedding": teacher_BD}
    some: dict[str, Any] = {"labels_B": torch.tensor([0, 1, -1, -1]), "labelling": Labelling(2)}
    half, whole = (
        PktObjective(PktConfig())(signals_with(*features, **more)).terms for more in (some, dict[str, Any]())
    )
    assert half["neighbours"].item() == whole["neighbours"].item()
    assert torch.isfinite(half["ce"])
