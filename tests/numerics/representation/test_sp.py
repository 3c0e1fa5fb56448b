"""Resemblances between samples: worked numbers, what leaves them, gradients, small and flat batches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.numerics.representation.relation_rows import S3, T3, drawn, rotation, signals_with
from trainables.config import KdConfig
from trainables.config.objectives import SpConfig
from trainables.objectives import KdObjective, SpObjective
from trainables.objectives.representation.sp import similarity_gap
from trainables.signals import Labelling

# B = samples in the batch, D = numbers in a sample's feature
DIGITS = 6e-7


def test_the_similarity_has_the_worked_values() -> None:
    assert similarity_gap(S3, T3).item() == pytest.approx(0.032618, abs=DIGITS)
    assert similarity_gap(S3 + 1, T3).item() == pytest.approx(0.075725, abs=DIGITS)


def test_it_is_the_mean_over_pairs_of_the_definition_written_out() -> None:
    student_BD, teacher_BD = drawn(0, 5, 3), drawn(1, 5, 7)
    total = 0.0
    for i in range(5):
        rows = []
        for all_BD in (student_BD, teacher_BD):
            row_B = torch.stack([all_BD[i].dot(all_BD[j]) for j in range(5)])
            rows.append(row_B / row_B.norm())
        total += (rows[0] - rows[1]).square().sum().item()
    assert similarity_gap(student_BD, teacher_BD).item() == pytest.approx(total / 25, rel=1e-12)


@pytest.mark.parametrize("factor", [1e-4, 0.3, 1e6])
def test_rotations_and_a_common_scale_leave_it(factor: float) -> None:
    student_BD, teacher_BD = drawn(0, 6, 4), drawn(1, 6, 5)
    turned_BD = factor * student_BD @ rotation(2, 4)
    expected = similarity_gap(student_BD, teacher_BD).item()
    assert similarity_gap(turned_BD, teacher_BD).item() == pytest.approx(expected, rel=1e-9)
    turned_teacher_BD = factor * teacher_BD @ rotation(3, 5)
    assert similarity_gap(student_BD, turned_teacher_BD).item() == pytest.approx(expected, rel=1e-9)
    assert similarity_gap(turned_BD, student_BD).item() == pytest.approx(0.0, abs=1e-12)


def test_scaling_single_rows_and_shifting_all_do_not_leave_it() -> None:
    student_BD, teacher_BD = drawn(0, 6, 4), drawn(1, 6, 5)
    expected = similarity_gap(student_BD, teacher_BD).item()
    scales_B1 = torch.linspace(0.2, 3.0, 6, dtype=torch.float64)[:, None]
    assert abs(similarity_gap(scales_B1 * student_BD, teacher_BD).item() - expected) > 1e-3
    assert abs(similarity_gap(student_BD + 1, teacher_BD).item() - expected) > 1e-3


@pytest.mark.parametrize("seed", range(5))
def test_it_is_at_most_four_over_the_batch_and_two_of_features_that_are_not_negative(seed: int) -> None:
    student_BD, teacher_BD = drawn(seed, 8, 3), drawn(seed + 50, 8, 3)
    assert 0 < similarity_gap(student_BD, teacher_BD).item() <= 4 / 8
    assert similarity_gap(student_BD.abs(), teacher_BD.abs()).item() <= 2 / 8


def test_the_order_of_the_batch_does_not_matter() -> None:
    student_BD, teacher_BD, order = drawn(0, 7, 4), drawn(1, 7, 5), torch.tensor([3, 1, 6, 0, 2, 5, 4])
    torch.testing.assert_close(
        similarity_gap(student_BD[order], teacher_BD[order]), similarity_gap(student_BD, teacher_BD)
    )


def test_its_gradient_is_that_of_differences_and_none_reaches_the_teacher() -> None:
    student_BD = drawn(0, 5, 3).requires_grad_()
    teacher_BD = drawn(1, 5, 4).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda rows_BD: similarity_gap(rows_BD, teacher_BD), student_BD, rtol=1e-6, atol=1e-9
    )
    similarity_gap(student_BD, teacher_BD).backward()  # type: ignore[no-untyped-call]
    assert teacher_BD.grad is None


@pytest.mark.parametrize("on", ["embedding", "map"])
def test_the_objective_adds_labels_soft_targets_and_the_weighted_similarity(on: str) -> None:
    name = "embedding" if on == "embedding" else "last"
    student, teacher = drawn(0, 4, 2, 3, 3), drawn(1, 4, 5, 2, 2)
    if on == "embedding":
        student, teacher = student.mean(dim=(2, 3)), teacher.mean(dim=(2, 3))
    signals = signals_with({name: student}, {name: teacher})
    config = SpConfig(level=on, ce_weight=0.5, kd_weight=2.0, sp_weight=300.0)
    losses = SpObjective(config)(signals)
    kd = KdObjective(KdConfig(ce_weight=0.5, kd_weight=2.0))(signals)
    similarity = similarity_gap(student.flatten(1), teacher.flatten(1))
    assert {key: losses.terms[key].item() for key in kd.terms} == {
        key: value.item() for key, value in kd.terms.items()
    }
    assert losses.terms["kd"].item() == pytest.approx(0.553157, abs=DIGITS)
    assert losses.terms["similarity"].item() == similarity.item()
    assert losses.total.item() == pytest.approx(kd.total.item() + 300 * similarity.item(), rel=1e-12)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("value", [0.0, 1.0, 1e-30])
def test_flat_features_and_single_samples_give_finite_losses_and_gradients(rows: int, value: float) -> None:
    student_BD = torch.full((rows, 4), value, requires_grad=True)
    losses = SpObjective(SpConfig())(
        signals_with({"embedding": student_BD}, {"embedding": torch.ones(rows, 3)})
    )
    (gradient_BD,) = torch.autograd.grad(losses.total, student_BD)
    assert torch.isfinite(losses.total)
    assert torch.isfinite(gradient_BD).all()


def test_a_row_of_zeros_resembles_nothing_and_has_a_bounded_gradient() -> None:
    student_BD = S3.clone()
    student_BD[1] = 0.0
    student_BD.requires_grad_()
    loss = similarity_gap(student_BD, T3)
    (gradient_BD,) = torch.autograd.grad(loss, student_BD)
    assert loss.item() > similarity_gap(S3, T3).item()
    assert torch.isfinite(gradient_BD).all()
    assert gradient_BD.abs().max() < 10


def test_it_is_computed_in_fp32_inside_autocast() -> None:
    student_BD, teacher_BD = drawn(0, 16, 8, scale=60).float(), drawn(1, 16, 8, scale=60).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = similarity_gap(student_BD, teacher_BD)
    assert inside.dtype is torch.float32
    assert inside.item() == similarity_gap(student_BD, teacher_BD).item()
    halves = similarity_gap(student_BD.bfloat16(), teacher_BD)
    assert halves.item() == similarity_gap(student_BD.bfloat16().float(), teacher_BD).item()


def test_a_teacher_in_fp16_changes_the_loss_by_less_than_a_hundredth() -> None:
    student_BD, teacher_BD = drawn(0, 64, 32).float(), drawn(1, 64, 48, scale=20).float()
    kept = similarity_gap(student_BD, teacher_BD.half().float()).item()
    assert kept == pytest.approx(similarity_gap(student_BD, teacher_BD).item(), rel=1e-2)


def test_unlabelled_samples_are_compared_and_have_no_part_in_the_labels() -> None:
    student_BD, teacher_BD = drawn(0, 4, 3), drawn(1, 4, 5)

    def losses(labels: list[int], labelling: Labelling | None, rows: slice) -> dict[str, float]:
        signals = signals_with(
            {"embedding": student_BD[rows]},
            {"embedding": teacher_BD[rows]},
            labels_B=torch.tensor(labels),
            labelling=labelling,
        )
        terms = SpObjective(SpConfig())(signals).terms
        return {name: term.item() for name, term in terms.items()}

    half = losses([0, 1, -1, -1], Labelling(2), slice(4))
    assert half["ce"] == losses([0, 1], None, slice(2))["ce"]
    assert half["similarity"] == losses([0, 1, 0, 1], None, slice(4))["similarity"]


def test_an_option_says_which_feature_is_asked_for() -> None:
    assert SpConfig().student_features == SpConfig().teacher_features == ("embedding",)
    assert SpConfig(level="map").student_features == SpConfig(level="map").teacher_features == ("last",)
    student: dict[str, Tensor] = {"embedding": S3}
    with pytest.raises(ValueError, match="no feature 'last'"):
        SpObjective(SpConfig(level="map"))(signals_with(student, student))
