"""Distances between embeddings of student and teacher, and between what one classifier makes of them.

Each takes the student first and never lets gradient reach the teacher.
"""

# B = samples in the batch, D = numbers in an embedding, C = classes

from __future__ import annotations

import torch
from torch import Tensor

from trainables.objectives.terms.directions import directions
from trainables.tensors import at_least_fp32


def direction_distance_B(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """2 - 2 cos(student, teacher) of each sample, from 0 to 4: the squared distance of their directions.

    SimReg's term (Navaneet et al., BMVC 2021, arXiv 2201.05131), and what TH-KD's released code sums. It is
    summed over D: the mean over all numbers is D times less.

    Raises:
        ValueError: they differ in shape.
    """
    _check_same_shape(student_BD, teacher_BD)
    # Of the difference, and not 2 - 2 cos: that loses half of the digits where both agree.
    difference_BD = directions(student_BD, dim=-1) - directions(teacher_BD.detach(), dim=-1)
    return difference_BD.square().sum(dim=-1)


def squared_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over all numbers of (student - teacher)² (SRD: Yang et al., IJCV 2024, arXiv 2205.06701).

    Raises:
        ValueError: they differ in shape.
    """
    _check_same_shape(student, teacher)
    return (at_least_fp32(student) - at_least_fp32(teacher.detach())).square().mean()


def classified(embedding_BD: Tensor, weight_CD: Tensor, bias_C: Tensor) -> Tensor:
    """BxC: embedding Wᵗ + b, outside autocast; gradient goes through a classifier, and never to it."""
    with torch.autocast(embedding_BD.device.type, enabled=False):
        embedding_BD = at_least_fp32(embedding_BD)
        weight_DC = weight_CD.detach().to(embedding_BD.dtype).T
        return embedding_BD @ weight_DC + bias_C.detach().to(embedding_BD.dtype)


def _check_same_shape(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise ValueError(
            f"the student's {tuple(student.shape)} and the teacher's {tuple(teacher.shape)} differ in shape; "
            "give both for the same samples and widths"
        )
