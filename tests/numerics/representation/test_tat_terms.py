"""The target-aware term: worked numbers of the reference, patch groups, anchors, invariances, gradient."""

from __future__ import annotations

from typing import Final

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.numerics.reference import DIGITS
from tests.numerics.representation.map_signals import drawn
from trainables.config.representation.maps import Orientation
from trainables.objectives.representation.terms.target_aware import (
    anchor_loss,
    anchored,
    patch_group_loss,
    patch_groups,
    rebuilt,
    whole_map_loss,
)

# B = samples in the batch, C = channels, H, W = height and width, N = positions

TEACHER_ROW, STUDENT_ROW = Orientation.TEACHER_ROW, Orientation.STUDENT_ROW
BOTH: Final = (TEACHER_ROW, STUDENT_ROW)
STUDENT: Final = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
TEACHER: Final = [[2.0, 0.0], [1.0, 1.0], [0.0, 1.0]]


def as_map(rows: list[list[float]]) -> Tensor:
    """1xCxNx1 of N positions."""
    return torch.tensor(rows, dtype=torch.float64).T[None, :, :, None]


def loss(student_BCHW: Tensor, teacher_BCHW: Tensor, orientation: Orientation) -> Tensor:
    """With identity maps."""
    return whole_map_loss(student_BCHW, student_BCHW, teacher_BCHW, teacher_BCHW, orientation)


def ramps() -> tuple[Tensor, Tensor]:
    """The fixture of check 4: a ramp of 4x4, and its mirror plus a half."""
    student = torch.arange(16, dtype=torch.float64).reshape(1, 1, 4, 4) / 8
    return student, student.flip(-1) + 0.5


def patches(grid: int, groups: int, orientation: Orientation) -> float:
    student, teacher = ramps()
    maps = (student, student, teacher, teacher)
    return patch_group_loss(maps, orientation, grid=(grid, grid), groups=groups).item()


def anchors(count: int, orientation: Orientation) -> float:
    student, teacher = ramps()
    return anchor_loss((student, student, teacher, teacher), orientation, anchors=count).item()


def test_three_positions_have_the_worked_values() -> None:
    student, teacher = as_map(STUDENT), as_map(TEACHER)
    of_text = loss(student, teacher, TEACHER_ROW).item()
    assert of_text == pytest.approx(0.310193, abs=DIGITS)
    assert (6 * of_text) ** 0.5 == pytest.approx(1.364243, abs=DIGITS)  # the norm of the paper's text
    assert loss(student, teacher, STUDENT_ROW).item() == pytest.approx(0.395995, abs=DIGITS)


@pytest.mark.parametrize("orientation", BOTH)
def test_equal_maps_do_not_give_zero(orientation: Orientation) -> None:
    assert loss(as_map(TEACHER), as_map(TEACHER), orientation).item() == pytest.approx(0.141845, abs=DIGITS)


@pytest.mark.parametrize("orientation", BOTH)
def test_a_constant_student_map_pays_the_plain_square(orientation: Orientation) -> None:
    flat = as_map([[0.5, 0.25]] * 3)
    assert loss(flat, as_map(TEACHER), orientation).item() == pytest.approx(0.656250, abs=DIGITS)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), order=st.permutations(range(6)))
def test_a_teachers_row_does_not_see_how_the_students_positions_are_ordered(
    seed: int, order: list[int]
) -> None:
    student, teacher = drawn(seed, 2, 3, 6, 1), drawn(seed + 1, 2, 3, 6, 1)
    moved = student[:, :, order]
    found, expected = loss(moved, teacher, TEACHER_ROW), loss(student, teacher, TEACHER_ROW)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_a_students_row_does_see_it() -> None:
    student, teacher = as_map(STUDENT), as_map(TEACHER)
    moved = loss(student.flip(2), teacher, STUDENT_ROW).item()
    assert abs(moved - loss(student, teacher, STUDENT_ROW).item()) > 1e-3


@pytest.mark.parametrize("change", ["scale", "shift"])
@pytest.mark.parametrize("orientation", BOTH)
def test_neither_scale_nor_shift_of_the_student_is_forgiven(change: str, orientation: Orientation) -> None:
    student, teacher = as_map(STUDENT), as_map(TEACHER)
    changed = 2 * student if change == "scale" else student + 1
    found, plain = loss(changed, teacher, orientation), loss(student, teacher, orientation)
    assert abs(found.item() - plain.item()) > 1e-3


@pytest.mark.parametrize("orientation", BOTH)
def test_of_one_position_it_is_the_plain_square(orientation: Orientation) -> None:
    query, value, key, target = (drawn(seed, 3, 5, 1, 1) for seed in range(4))
    found = whole_map_loss(query, value, key, target, orientation)
    torch.testing.assert_close(found, (value - target).square().mean(), rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("orientation", "of_groups", "of_anchors", "of_all"),
    [
        (STUDENT_ROW, {4: 0.326919, 2: 0.284630, 1: 0.230800}, 0.282412, 0.277615),
        (TEACHER_ROW, {4: 0.286586, 2: 0.236973, 1: 0.187110}, 0.215922, 0.206385),
    ],
)
def test_ramps_of_four_by_four_have_the_worked_values(
    orientation: Orientation, of_groups: dict[int, float], of_anchors: float, of_all: float
) -> None:
    found = {groups: patches(2, groups, orientation) for groups in of_groups}
    assert found == pytest.approx(of_groups, abs=DIGITS)
    assert anchors(2, orientation) == pytest.approx(of_anchors, abs=DIGITS)
    assert loss(*ramps(), orientation).item() == pytest.approx(of_all, abs=DIGITS)
    assert patches(1, 1, orientation) == pytest.approx(of_all, abs=DIGITS)  # one patch is the whole map
    assert anchors(4, orientation) == pytest.approx(of_all, abs=DIGITS)  # and each position an anchor


@pytest.mark.parametrize("orientation", BOTH)
def test_one_anchor_is_the_square_of_averages_and_one_group_of_points_the_plain_square(
    orientation: Orientation,
) -> None:
    assert anchors(1, orientation) == pytest.approx(0.250000, abs=DIGITS)
    assert patches(4, 1, orientation) == pytest.approx(0.328125, abs=DIGITS)


def test_patches_are_numbered_by_rows_and_lie_side_by_side_along_channels() -> None:
    map_BCHW = torch.arange(2 * 4 * 6, dtype=torch.float64).reshape(1, 2, 4, 6)
    groups = patch_groups(map_BCHW, grid=(2, 3), groups=3)
    assert groups.shape == (1, 3, 4, 4)  # patches of 2x2 positions, two to a group, two channels each
    second = map_BCHW[0, :, 0:2, 4:6], map_BCHW[0, :, 2:4, 0:2]  # the third and fourth patch
    expected = torch.cat([patch.flatten(1) for patch in second]).T
    assert torch.equal(groups[0, 1], expected)


def test_rows_and_columns_that_remain_are_left_out() -> None:
    map_BCHW = drawn(1, 2, 3, 5, 7)
    cut = map_BCHW[:, :, :4, :6]
    assert torch.equal(
        patch_groups(map_BCHW, grid=(2, 3), groups=2), patch_groups(cut, grid=(2, 3), groups=2)
    )
    assert anchored(map_BCHW, 2).shape == (2, 3, 2, 2)  # averages of 2x3
    torch.testing.assert_close(anchored(map_BCHW, 2)[:, :, 0, 0], map_BCHW[:, :, :2, :3].mean((2, 3)))


@pytest.mark.parametrize(
    ("grid", "groups", "message"),
    [
        ((5, 2), 1, "a map of 4x4 has no 5x2 patches"),
        ((0, 2), 1, "a map of 4x4 has no 0x2 patches"),
        ((2, 2), 3, "4 patches make no 3 equal groups; take a divisor of 4"),
        ((2, 2), 0, "4 patches make no 0 equal groups"),
    ],
)
def test_patches_that_do_not_fit_are_refused(grid: tuple[int, int], groups: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        patch_groups(ramps()[0], grid=grid, groups=groups)


def test_anchors_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="a map of 4x4 has no 5x5 anchors"):
        anchored(ramps()[0], 5)


def test_a_students_row_refuses_maps_of_unequal_size() -> None:
    with pytest.raises(ValueError, match="the student has 4, the teacher 9; bring the maps to one size"):
        loss(drawn(1, 1, 2, 2, 2), drawn(2, 1, 2, 3, 3), STUDENT_ROW)


@pytest.mark.parametrize("orientation", BOTH)
def test_the_gradient_through_query_and_value_is_that_of_differences(orientation: Orientation) -> None:
    query, value, key, target = (drawn(seed, 2, 3, 2, 2).requires_grad_() for seed in range(4))
    inputs = (query, value, key)

    def of(query: Tensor, value: Tensor, key: Tensor) -> Tensor:
        return whole_map_loss(query, value, key, target, orientation)

    assert torch.autograd.gradcheck(of, inputs, rtol=1e-6, atol=1e-9)
    of(*inputs).backward()  # type: ignore[no-untyped-call]
    assert target.grad is None
    assert all(part.grad is not None and part.grad.abs().sum() > 0 for part in inputs)


def test_large_inner_products_of_half_precision_are_taken_in_fp32() -> None:
    student, teacher = (10 * drawn(seed, 2, 8, 4, 4).bfloat16() for seed in (1, 2))
    expected = loss(student.float(), teacher.float(), STUDENT_ROW)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(student, teacher, STUDENT_ROW)
    assert found.dtype is torch.float32
    assert torch.equal(found, expected)
    rows = torch.zeros(1, 4, 2, dtype=torch.bfloat16)
    assert rebuilt(rows, rows, rows, TEACHER_ROW).dtype is torch.float32
