"""Four quarter turns of each image: the order of their rows, and cosines of turned ones to upright ones.

Rows of an image lie together, upright first: row 4 i + r is image i after r quarter turns.
"""

# B = images, R = 4 B rows of all turns, A = 3 B rows of turned images, N = B rows of upright ones
# D = numbers in an embedding, C = classes, J = 4 C joint labels

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from trainables.config.objective_base import ROTATED
from trainables.objectives.terms.directions import directions
from trainables.objectives.terms.divergences import kd_divergence_B
from trainables.tensors import at_least_fp32

TURNS: Final = len(ROTATED)


def in_rows(by_bank: Mapping[str, Tensor]) -> Tensor:
    """The rows of the banks of `ROTATED`, B of each, as R rows, at least in fp32."""
    return torch.stack([at_least_fp32(by_bank[bank]) for bank in ROTATED], dim=1).flatten(0, 1)


def turned_and_upright(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Of R rows, the A of turned images and the N of upright ones."""
    by_image = rows.reshape(-1, TURNS, *rows.shape[1:])
    return by_image[:, 1:].flatten(0, 1), by_image[:, 0]


def images_of_turned(n_images: int, device: torch.device) -> Tensor:
    """int64 A: of which image each turned row is."""
    return torch.arange(n_images, device=device).repeat_interleave(TURNS - 1)


def cosines_AN(rows_RD: Tensor) -> Tensor:
    """The cosine of each turned row to each upright one, outside autocast."""
    turned_AD, upright_ND = (directions(rows, dim=-1) for rows in turned_and_upright(rows_RD))
    with torch.autocast(rows_RD.device.type, enabled=False):
        return turned_AD @ upright_ND.T


def similarity_divergence_A(student_RD: Tensor, teacher_RD: Tensor, *, temperature: float) -> Tensor:
    """KL(softmax(t_a / T) ‖ softmax(s_a / T)) of each turned row a over the upright ones, without T².

    s and t are the cosines of `cosines_AN`; the two networks may differ in width. No gradient reaches the
    teacher. With one image a row has one entry, and the divergence is 0.
    """
    student_AN, teacher_AN = cosines_AN(student_RD), cosines_AN(teacher_RD.detach())
    return kd_divergence_B(student_AN, teacher_AN, temperature=temperature) / temperature**2


def joint_labels_R(labels_B: Tensor) -> Tensor:
    """int64: the joint label 4 y + r of each row, of the class y and the r quarter turns of the image."""
    turns_R = torch.arange(TURNS, device=labels_B.device).repeat(len(labels_B))
    return TURNS * labels_B.repeat_interleave(TURNS) + turns_R
