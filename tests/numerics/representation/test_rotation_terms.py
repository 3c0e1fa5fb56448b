"""What objectives of quarter turns are made of: rows, joint labels, ranks; a teacher's head and branches."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.numerics.reference import DIGITS
from trainables.config.objective_base import ROTATED
from trainables.objectives.representation.terms.joint_branches import (
    JointBranches,
    branch_losses,
    joint_label_loss,
)
from trainables.objectives.representation.terms.rotations import (
    cosines_AN,
    images_of_turned,
    in_rows,
    joint_labels_R,
    similarity_divergence_A,
    turned_and_upright,
)
from trainables.objectives.representation.terms.selection import kept_A, mean_of_kept, rank_A
from trainables.objectives.representation.terms.self_supervision import SsHead, own_image_loss

# Two images, each upright and turned three times.
STUDENT_HEAD = [[1, 0], [1, 1], [2, 1], [1, 0], [0, 1], [0, 1], [1, 1], [1, 2]]
TEACHER_HEAD = [[1, 0], [2, 1], [1, 2], [1, 0], [0, 1], [1, 3], [3, 1], [0, 1]]


def rows(values: list[list[int]], *, grad: bool = False) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def test_rows_of_an_image_lie_together_upright_first() -> None:
    by_bank = {bank: torch.tensor([[10 * r], [10 * r + 1], [10 * r + 2]]) for r, bank in enumerate(ROTATED)}
    assert in_rows(by_bank).flatten().tolist() == [0, 10, 20, 30, 1, 11, 21, 31, 2, 12, 22, 32]
    turned, upright = turned_and_upright(in_rows(by_bank))
    assert upright.flatten().tolist() == [0, 1, 2]
    assert turned.flatten().tolist() == [10, 20, 30, 11, 21, 31, 12, 22, 32]
    assert images_of_turned(3, torch.device("cpu")).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_joint_labels_are_class_first() -> None:
    """Check 1 of HSAKD."""
    assert joint_labels_R(torch.tensor([1, 0])).tolist() == [4, 5, 6, 7, 0, 1, 2, 3]


def test_four_quarter_turns_are_none() -> None:
    """Check 5 of HSAKD."""
    image_CHW = torch.rand(3, 5, 5)
    turned = image_CHW
    for _ in ROTATED:
        turned = turned.rot90(1, (1, 2))
    assert torch.equal(turned, image_CHW)


def test_the_similarity_of_heads_has_the_worked_value() -> None:
    """Check 2 of SSKD: with T² of 0.25, before a selection."""
    found_A = similarity_divergence_A(rows(STUDENT_HEAD), rows(TEACHER_HEAD), temperature=0.5)
    assert found_A.shape == (6,)
    assert 0.25 * found_A.mean().item() == pytest.approx(0.031515, abs=DIGITS)


def test_ranks_and_selection_have_the_worked_values() -> None:
    """Check 2 of SSKD."""
    cosines = cosines_AN(rows(TEACHER_HEAD))
    ranks_A = rank_A(cosines, images_of_turned(2, cosines.device))
    assert ranks_A.tolist() == [0, 1, 0, 0, 1, 0]
    assert [int(kept_A(ranks_A, ratio).sum()) for ratio in (0.0, 0.75, 1.0)] == [4, 5, 6]
    assert kept_A(ranks_A, 0.75).tolist() == [True, True, True, True, False, True]  # the first of equal ranks


def test_ties_are_ranked_by_place() -> None:
    scores_AN = torch.tensor([[1.0, 1.0, 1.0]]).expand(3, -1)
    assert rank_A(scores_AN, torch.tensor([0, 1, 2])).tolist() == [0, 1, 2]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=9),
    st.sampled_from([0.0, 0.3, 0.5, 0.75, 1.0]),
    st.integers(0, 3),
)
def test_ranks_and_selection_are_those_of_stable_sorts(
    scores: list[list[int]], ratio: float, right: int
) -> None:
    places = [sorted(range(4), key=lambda item: -row[item]).index(right) for row in scores]
    ranks_A = rank_A(torch.tensor(scores).float(), torch.full((len(scores),), right))
    assert ranks_A.tolist() == places
    wrong = sorted((row for row, place in enumerate(places) if place), key=lambda row: places[row])
    kept = {row for row, place in enumerate(places) if not place} | set(wrong[: int(ratio * len(wrong))])
    assert set(kept_A(ranks_A, ratio).nonzero().flatten().tolist()) == kept


def test_a_mean_over_no_row_is_zero_with_a_zero_gradient() -> None:
    values_A = torch.rand(3, dtype=torch.float64, requires_grad=True)
    mean = mean_of_kept(values_A, torch.zeros(3, dtype=torch.bool))
    assert mean.item() == 0
    assert torch.autograd.grad(mean, values_A)[0].tolist() == [0, 0, 0]


def test_what_the_head_learns_by_has_the_worked_value() -> None:
    """Check 3 of SSKD."""
    assert own_image_loss(rows(TEACHER_HEAD)).item() == pytest.approx(0.591180, abs=DIGITS)


def test_the_head_learns_to_find_the_own_image_and_has_the_stated_size() -> None:
    torch.manual_seed(0)
    head, embedding_RD = SsHead(6), torch.randn(16, 6)
    assert sum(parameter.numel() for parameter in head.parameters()) == 2 * (6**2 + 6)
    optimiser = torch.optim.SGD(head.parameters(), lr=0.5)
    before = own_image_loss(head(embedding_RD)).item()
    for _ in range(50):
        optimiser.zero_grad()
        own_image_loss(head(embedding_RD)).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert own_image_loss(head(embedding_RD)).item() < before - 0.1
    assert own_image_loss(torch.zeros(16, 6)).item() == pytest.approx(math.log(4))


def test_the_gradients_are_those_of_differences() -> None:
    student, teacher = rows(STUDENT_HEAD, grad=True), rows(TEACHER_HEAD)
    assert torch.autograd.gradcheck(
        lambda one: similarity_divergence_A(one, teacher, temperature=0.5).mean(), student
    )
    assert torch.autograd.gradcheck(own_image_loss, rows(TEACHER_HEAD, grad=True))


def test_the_joint_loss_of_a_teacher_has_the_worked_value() -> None:
    """Check 3 of HSAKD."""
    teacher_RJ = torch.cos(torch.arange(32, dtype=torch.float64)).reshape(4, 8)
    assert joint_label_loss(teacher_RJ, torch.tensor([0])).item() == pytest.approx(2.212804, abs=DIGITS)
    losses = branch_losses({"branch1": teacher_RJ, "branch2": torch.zeros(4, 8)}, torch.tensor([0]))
    assert losses["branch2"].item() == pytest.approx(math.log(8))
    assert losses["branch1"].item() == pytest.approx(2.212804, abs=DIGITS)


def strides(branch: nn.Module) -> list[tuple[int, int, tuple[int, ...]]]:
    convolutions = [layer for layer in branch.modules() if isinstance(layer, nn.Conv2d)]
    return [(layer.in_channels, layer.out_channels, layer.stride) for layer in convolutions]


def test_a_branch_has_the_stages_that_follow_and_the_last_one_a_stage_more() -> None:
    branches = JointBranches([(4, 8, 8), (6, 4, 4), (10, 2, 2)], 3, depth=2)
    assert [strides(branch) for branch in branches.branches] == [
        [(4, 6, (2, 2)), (6, 6, (1, 1)), (6, 10, (2, 2)), (10, 10, (1, 1))],
        [(6, 10, (2, 2)), (10, 10, (1, 1))],
        [(10, 10, (1, 1)), (10, 10, (1, 1))],
    ]
    maps = [torch.rand(4, *shape) for shape in ((4, 8, 8), (6, 4, 4), (10, 2, 2))]
    assert [tuple(joint.shape) for joint in branches(maps)] == [(4, 12)] * 3


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 5, 7), (1, 2, 2)])
def test_a_branch_on_the_only_stage_of_any_size_learns(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    branches, map_BCHW = JointBranches([shape], 2, depth=1), torch.rand(8, *shape)
    labels_B = torch.tensor([0, 1])
    optimiser = torch.optim.SGD(branches.parameters(), lr=0.1)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = joint_label_loss(branches([map_BCHW])[0], labels_B)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_a_network_without_maps_has_no_branches() -> None:
    with pytest.raises(ValueError, match=r"branches stand on maps \(C, H, W\).*\[\(16,\)\]"):
        JointBranches([(16,)], 3, depth=2)


@pytest.mark.parametrize("module", [SsHead(4), JointBranches([(4, 2, 2)], 3, depth=1)])
def test_modules_compute_in_fp32_under_autocast(module: nn.Module) -> None:
    given = torch.rand(4, 4) if isinstance(module, SsHead) else [torch.rand(4, 4, 2, 2)]
    module.eval()
    plain = module(given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = module(given)
    for one, other in zip(
        [plain] if isinstance(plain, Tensor) else plain,
        [inside] if isinstance(inside, Tensor) else inside,
        strict=True,
    ):
        assert other.dtype == torch.float32
        assert torch.equal(one, other)
