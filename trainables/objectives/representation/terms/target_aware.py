"""A student's map rebuilt by attention to the teacher's (TaT: Lin et al., CVPR 2022, arXiv 2205.10793).

For large maps the same within groups of patches, and between averages at few anchors (its section 3.2).
Every function takes the student first and never lets gradient reach the target.
"""

# B = samples in the batch, C = channels, H, W = height and width, N = positions (H·W), F = numbers a position
# G = groups of patches

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.config.representation.maps import Orientation
from trainables.objectives.representation.terms.maps import mean_square
from trainables.tensors import at_least_fp32


def rebuilt(query: Tensor, key: Tensor, value: Tensor, orientation: Orientation) -> Tensor:
    """f' = A value, rows of ...xNxF; the inner products are not scaled, and their softmax is at least fp32.

    teacher_row: A_ij = softmax over j of <key_i, query_j>: each of the teacher's positions out of all of the
    student's, w_ij = softmax_j(<fs_j, ft_i>) of the paper's text.
    student_row: A_ij = softmax over j of <query_i, key_j>: softmax(gamma(fs) · theta(ft)^T) as it is written,
    and as the authors' code has it; row i is then the student's position, and f'_i is compared with ft_i.

    Raises:
        ValueError: with student_row, the two have not equally many positions.
    """
    if orientation is Orientation.STUDENT_ROW and key.shape[-2] != value.shape[-2]:
        raise ValueError(
            f"student_row pairs positions, and the student has {value.shape[-2]}, the teacher "
            f"{key.shape[-2]}; bring the maps to one size, or take teacher_row"
        )
    query, key, value = (at_least_fp32(rows) for rows in (query, key, value))
    with torch.autocast(query.device.type, enabled=False):
        asked, answering = (key, query) if orientation is Orientation.TEACHER_ROW else (query, key)
        weights = (asked @ answering.transpose(-1, -2)).softmax(dim=-1)
        return weights @ value


def whole_map_loss(
    query_BCHW: Tensor, value_BCHW: Tensor, key_BCHW: Tensor, target_BCHW: Tensor, orientation: Orientation
) -> Tensor:
    """L_TaT: the mean over all elements of (f' - target)², over all positions of whole maps.

    It is not 0 where student and teacher are equal: the attention averages over positions.

    Raises:
        ValueError: channels differ, or, with student_row, sizes do.
    """
    query, value, key, target = (positions(part) for part in (query_BCHW, value_BCHW, key_BCHW, target_BCHW))
    return mean_square(rebuilt(query, key, value, orientation), target)


def patch_group_loss(
    maps: tuple[Tensor, Tensor, Tensor, Tensor],
    orientation: Orientation,
    *,
    grid: tuple[int, int],
    groups: int,
) -> Tensor:
    """L_P: the same within each group of patches, mean over groups and elements.

    `maps` are query, value, key and target, BxCxHxW each; see `patch_groups`.

    Raises:
        ValueError: the grid does not fit the maps, or the groups do not divide its patches.
    """
    query, value, key, target = (patch_groups(part, grid=grid, groups=groups) for part in maps)
    return mean_square(rebuilt(query, key, value, orientation), target)


def anchor_loss(
    maps: tuple[Tensor, Tensor, Tensor, Tensor], orientation: Orientation, *, anchors: int
) -> Tensor:
    """L_A: the same between averages, `maps` as in `patch_group_loss`; see `anchored`.

    With one anchor it is the squared difference of the global averages, mean over channels.

    Raises:
        ValueError: there are more anchors than rows or columns.
    """
    query_BCHW, value_BCHW, key_BCHW, target_BCHW = (anchored(part, anchors) for part in maps)
    return whole_map_loss(query_BCHW, value_BCHW, key_BCHW, target_BCHW, orientation)


def positions(map_BCHW: Tensor) -> Tensor:
    """BxNxC: a row for each position, row by row of the map."""
    return map_BCHW.flatten(2).transpose(1, 2)


def patch_groups(map_BCHW: Tensor, *, grid: tuple[int, int], groups: int) -> Tensor:
    """BxGxNxF: n x m patches of h x w positions, consecutive ones side by side in groups.

    h = floor(H / n) and w = floor(W / m); the rows and columns that remain are left out. Patches are numbered
    row by row. Each group holds p = n·m / groups of them, which lie side by side along the channels, patch by
    patch: N = h·w positions of F = p·C numbers.

    Raises:
        ValueError: the map has fewer rows or columns than the grid, or the groups do not divide its patches.
    """
    (n, m), (height, width) = grid, map_BCHW.shape[-2:]
    if not (1 <= n <= height and 1 <= m <= width):
        raise ValueError(f"a map of {height}x{width} has no {n}x{m} patches; take a grid within its size")
    if groups < 1 or n * m % groups:
        raise ValueError(f"{n * m} patches make no {groups} equal groups; take a divisor of {n * m}")
    h, w = height // n, width // m
    rows, channels = map_BCHW.shape[:2]
    cut = map_BCHW[:, :, : n * h, : m * w].reshape(rows, channels, n, h, m, w)
    patches = cut.permute(0, 2, 4, 3, 5, 1).reshape(rows, groups, n * m // groups, h * w, channels)
    return patches.transpose(2, 3).flatten(3)


def anchored(map_BCHW: Tensor, anchors: int) -> Tensor:
    """The map averaged over parts of floor(H / anchors) x floor(W / anchors), as far as whole ones go.

    Raises:
        ValueError: there are more anchors than rows or columns.
    """
    height, width = map_BCHW.shape[-2:]
    if not 1 <= anchors <= min(height, width):
        raise ValueError(f"a map of {height}x{width} has no {anchors}x{anchors} anchors; take fewer")
    return F.avg_pool2d(at_least_fp32(map_BCHW), (height // anchors, width // anchors))
