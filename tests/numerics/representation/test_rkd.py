"""Distances and angles: worked numbers, what leaves them, rows that coincide, memory that is bounded."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.numerics.representation.relation_rows import S3, T3, drawn, rotation, signals_with
from trainables.config import KdConfig
from trainables.config.objectives import RkdConfig
from trainables.objectives import KdObjective, RkdObjective
from trainables.objectives.representation.rkd import angle_gap, distance_gap
from trainables.signals import Labelling

# B = samples in the batch, D = numbers in an embedding
DIGITS = 6e-7
GAPS = {"distance": distance_gap, "angle": angle_gap}


def test_the_terms_and_their_benchmark_total_have_the_worked_values() -> None:
    assert distance_gap(S3, T3).item() == pytest.approx(0.036607, abs=DIGITS)
    assert angle_gap(S3, T3).item() == pytest.approx(0.065596, abs=DIGITS)
    total = 25 * distance_gap(S3, T3) + 50 * angle_gap(S3, T3)
    assert total.item() == pytest.approx(4.194991, abs=DIGITS)


def test_the_distances_are_the_definition_written_out() -> None:
    student_BD, teacher_BD = 3 * drawn(0, 4, 3), drawn(1, 4, 6)
    over_mean = []
    for rows_BD in (student_BD, teacher_BD):
        distances = {
            (i, j): (rows_BD[i] - rows_BD[j]).norm().item() for i, j in itertools.product(range(4), repeat=2)
        }
        positive = [value for value in distances.values() if value > 0]
        mean = sum(positive) / len(positive)
        over_mean.append({pair: value / mean for pair, value in distances.items()})
    gaps = [abs(over_mean[0][pair] - over_mean[1][pair]) for pair in over_mean[0]]
    total = sum(gap**2 / 2 if gap < 1 else gap - 0.5 for gap in gaps)
    assert distance_gap(student_BD, teacher_BD).item() == pytest.approx(total / 16, rel=1e-12)


def test_the_angles_are_the_definition_written_out() -> None:
    student_BD, teacher_BD = 3 * drawn(0, 4, 3), drawn(1, 4, 6)
    total = 0.0
    for i, j, k in itertools.product(range(4), repeat=3):
        if i in (j, k):
            continue
        ours, theirs = (
            F.cosine_similarity(rows_BD[j] - rows_BD[i], rows_BD[k] - rows_BD[i], dim=0).item()
            for rows_BD in (student_BD, teacher_BD)
        )
        gap = abs(ours - theirs)
        total += gap**2 / 2 if gap < 1 else gap - 0.5
    assert angle_gap(student_BD, teacher_BD).item() == pytest.approx(total / 64, rel=1e-9)


@pytest.mark.parametrize("term", GAPS)
@pytest.mark.parametrize("factor", [1e-3, 7.0, 1e4])
def test_rotations_a_common_scale_and_shifts_leave_it(term: str, factor: float) -> None:
    student_BD, teacher_BD, gap = drawn(0, 6, 4), drawn(1, 6, 5), GAPS[term]
    moved_BD = factor * student_BD @ rotation(2, 4) + 10
    expected = gap(student_BD, teacher_BD)
    torch.testing.assert_close(gap(moved_BD, teacher_BD), expected, rtol=1e-7, atol=1e-12)
    own = gap(moved_BD, student_BD)
    torch.testing.assert_close(own, torch.zeros_like(own), rtol=0, atol=1e-12)
    scaled_BD = student_BD * torch.linspace(0.2, 3.0, 6, dtype=torch.float64)[:, None]
    assert abs(gap(scaled_BD, teacher_BD).item() / expected.item() - 1) > 0.01


@pytest.mark.parametrize("term", GAPS)
def test_the_order_of_the_batch_does_not_matter(term: str) -> None:
    student_BD, teacher_BD, order = drawn(0, 7, 4), drawn(1, 7, 5), torch.tensor([3, 1, 6, 0, 2, 5, 4])
    gap = GAPS[term]
    torch.testing.assert_close(gap(student_BD[order], teacher_BD[order]), gap(student_BD, teacher_BD))


@pytest.mark.parametrize("term", GAPS)
def test_its_gradient_is_that_of_differences_and_none_reaches_the_teacher(term: str) -> None:
    student_BD, teacher_BD, gap = (
        drawn(0, 5, 3).requires_grad_(),
        drawn(1, 5, 4).requires_grad_(),
        GAPS[term],
    )
    assert torch.autograd.gradcheck(
        lambda rows_BD: gap(rows_BD, teacher_BD), student_BD, rtol=1e-6, atol=1e-9
    )
    gap(student_BD, teacher_BD).backward()  # type: ignore[no-untyped-call]
    assert teacher_BD.grad is None


def test_the_mean_distance_of_the_student_has_its_gradient() -> None:
    """Distances over their mean do not change with a common scale: the gradient along the rows is 0."""
    student_BD = drawn(0, 5, 3).requires_grad_()
    (gradient_BD,) = torch.autograd.grad(distance_gap(student_BD, drawn(1, 5, 4)), student_BD)
    assert gradient_BD.abs().max() > 1e-3
    assert (gradient_BD * student_BD).sum().item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("apart", [0.0, 1e-30, 1e-7, 1e-5])
def test_student_rows_that_coincide_have_a_bounded_gradient(apart: float) -> None:
    student_BD = drawn(0, 6, 4).float()
    student_BD[1] = student_BD[0]
    student_BD[1, 0] += apart
    student_BD.requires_grad_()
    teacher_BD = drawn(1, 6, 5).float()
    for gap in GAPS.values():
        loss = gap(student_BD, teacher_BD)
        (gradient_BD,) = torch.autograd.grad(loss, student_BD)
        assert torch.isfinite(loss)
        assert gradient_BD.abs().max() < 1


def test_triplets_with_a_side_of_no_length_in_either_network_count_as_nothing() -> None:
    student_BD, teacher_BD = drawn(0, 5, 4), drawn(1, 5, 3)
    for changed_BD in (student_BD, teacher_BD):
        changed_BD[1] = changed_BD[0]
        whole = angle_gap(student_BD, teacher_BD).item()
        total = 0.0
        for i, j, k in itertools.product(range(5), repeat=3):
            if i in (j, k) or {i, j} == {0, 1} or {i, k} == {0, 1}:
                continue
            ours, theirs = (
                F.cosine_similarity(rows_BD[j] - rows_BD[i], rows_BD[k] - rows_BD[i], dim=0).item()
                for rows_BD in (student_BD, teacher_BD)
            )
            gap = abs(ours - theirs)
            total += gap**2 / 2 if gap < 1 else gap - 0.5
        assert whole == pytest.approx(total / 125, rel=1e-9)


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("value", [0.0, 1.0, 1e-30])
def test_flat_embeddings_and_single_samples_give_finite_losses_and_gradients(rows: int, value: float) -> None:
    student_BD = torch.full((rows, 4), value, requires_grad=True)
    for teacher_BD in (torch.ones(rows, 3), drawn(1, rows, 3).float()):
        losses = RkdObjective(RkdConfig())(signals_with({"embedding": student_BD}, {"embedding": teacher_BD}))
        (gradient_BD,) = torch.autograd.grad(losses.total, student_BD, allow_unused=True)
        assert torch.isfinite(losses.total)
        assert torch.equal(gradient_BD, torch.zeros(rows, 4))


@pytest.mark.parametrize("most_numbers", [1, 300, 700])
def test_anchors_taken_in_parts_give_the_same_value_and_gradient(most_numbers: int) -> None:
    teacher_BD, found = drawn(1, 11, 5), []
    for limit in (most_numbers, 2**22):
        student_BD = drawn(0, 11, 4).requires_grad_()
        loss = angle_gap(student_BD, teacher_BD, most_numbers=limit)
        found.append((loss.detach(), *torch.autograd.grad(loss, student_BD)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-15)


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes how many numbers the largest tensor has that anything computes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for found in result if isinstance(result, tuple | list) else (result,):
            if isinstance(found, Tensor):
                self.numbers = max(self.numbers, found.numel())
        return result


@pytest.mark.parametrize("width", [4, 96])
def test_no_tensor_holds_all_triplets_and_none_is_kept_for_the_backward_pass(width: int) -> None:
    batch, limit, kept = 48, 3 * 96 * 48, dict[int, int]()
    student_BD, teacher_BD = drawn(0, batch, width).requires_grad_(), drawn(1, batch, 8)

    def note(saved: Tensor) -> Tensor:
        kept[saved.data_ptr()] = saved.numel()
        return saved

    with LargestTensor() as largest:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
            loss = angle_gap(student_BD, teacher_BD, most_numbers=limit)
        loss.backward()  # type: ignore[no-untyped-call]
    assert largest.numbers <= limit < batch**3 // 4
    assert sum(kept.values()) < batch**3 // 4
    assert student_BD.grad is not None
    assert student_BD.grad.abs().sum() > 0


def test_the_objective_adds_labels_soft_targets_and_both_weighted_terms() -> None:
    student_BD, teacher_BD = drawn(0, 4, 3), drawn(1, 4, 5)
    signals = signals_with({"embedding": student_BD}, {"embedding": teacher_BD})
    losses = RkdObjective(RkdConfig(kd_weight=1.0))(signals)
    kd = KdObjective(KdConfig(ce_weight=1.0, kd_weight=1.0))(signals).total.item()
    distance, angle = distance_gap(student_BD, teacher_BD).item(), angle_gap(student_BD, teacher_BD).item()
    assert (losses.terms["distance"].item(), losses.terms["angle"].item()) == (distance, angle)
    assert losses.total.item() == pytest.approx(kd + 25 * distance + 50 * angle, rel=1e-12)


def test_without_their_weight_the_angles_are_not_computed() -> None:
    student_BD, teacher_BD = drawn(0, 20, 3), drawn(1, 20, 5)
    signals = signals_with({"embedding": student_BD}, {"embedding": teacher_BD})
    with LargestTensor() as largest:
        losses = RkdObjective(RkdConfig(angle_weight=0.0))(signals)
    assert losses.terms["angle"].item() == 0.0
    assert losses.terms["distance"].item() == distance_gap(student_BD, teacher_BD).item()
    assert largest.numbers <= 20**2


@pytest.mark.parametrize("term", GAPS)
def test_it_is_computed_in_fp32_inside_autocast_and_near_float64(term: str) -> None:
    student_BD, teacher_BD = drawn(0, 16, 8, scale=60).float() + 500, drawn(1, 16, 8, scale=60).float()
    gap = GAPS[term]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = gap(student_BD, teacher_BD)
    assert inside.dtype is torch.float32
    assert inside.item() == gap(student_BD, teacher_BD).item()
    assert inside.item() == pytest.approx(gap(student_BD.double(), teacher_BD.double()).item(), rel=1e-5)
    halves_BD = student_BD.bfloat16()
    assert gap(halves_BD, teacher_BD).item() == gap(halves_BD.float(), teacher_BD).item()


@pytest.mark.parametrize("term", GAPS)
def test_a_teacher_in_fp16_changes_the_loss_by_less_than_a_hundredth(term: str) -> None:
    student_BD, teacher_BD = drawn(0, 32, 16).float(), drawn(1, 32, 24, scale=20).float()
    kept = GAPS[term](student_BD, teacher_BD.half().float()).item()
    assert kept == pytest.approx(GAPS[term](student_BD, teacher_BD).item(), rel=1e-2)


def test_unlabelled_samples_are_compared_and_have_no_part_in_the_labels() -> None:
    features = {"embedding": drawn(0, 4, 3)}, {"embedding": drawn(1, 4, 5)}
    some: dict[str, Any] = {"labels_B": torch.tensor([0, 1, -1, -1]), "labelling": Labelling(2)}
    half, whole = (
        RkdObjective(RkdConfig())(signals_with(*features, **more)).terms for more in (some, dict[str, Any]())
    )
    assert (half["distance"], half["angle"]) == (whole["distance"], whole["angle"])
    assert torch.isfinite(half["ce"])
