"""How samples, and how classes, resemble each other in a batch (MLLD: Jin et al., CVPR 2023)."""

# B = samples in the batch, C = classes

from __future__ import annotations

import torch
from torch import Tensor

from trainables.objectives.terms.divergences import check_same_shape
from trainables.tensors import at_least_fp32


def batch_gap_B(
    student_BC: Tensor, teacher_BC: Tensor, *, temperature: float, keep_B: Tensor | None = None
) -> Tensor:
    """Of each sample, the squared difference of its products with all samples, summed over these.

    The products are of softened probabilities, P Pᵗ (BxB); the mean over samples is the paper's batch term.
    With a mask, samples that are not kept count as 0 in both.

    Raises:
        ValueError: student and teacher differ in shape.
    """
    student_BC, teacher_BC = _softened(student_BC, teacher_BC, temperature, keep_B)
    return _gap(student_BC, teacher_BC)


def class_gap_C(
    student_BC: Tensor, teacher_BC: Tensor, *, temperature: float, keep_B: Tensor | None = None
) -> Tensor:
    """Of each class, the squared difference of its products with all classes, summed over these.

    The products are of softened probabilities, Pᵗ P (CxC); the mean over classes is the paper's class term.
    With a mask, samples that are not kept count as 0 in both.

    Raises:
        ValueError: student and teacher differ in shape.
    """
    student_BC, teacher_BC = _softened(student_BC, teacher_BC, temperature, keep_B)
    return _gap(student_BC.T, teacher_BC.T)


def _gap(student_NM: Tensor, teacher_NM: Tensor) -> Tensor:
    # Autocast would take products of matrices in half precision.
    with torch.autocast(student_NM.device.type, enabled=False):
        difference_NN = teacher_NM @ teacher_NM.T - student_NM @ student_NM.T
    return difference_NN.square().sum(dim=-1)


def _softened(
    student_BC: Tensor, teacher_BC: Tensor, temperature: float, keep_B: Tensor | None
) -> tuple[Tensor, Tensor]:
    check_same_shape(student_BC, teacher_BC)
    student_BC = (at_least_fp32(student_BC) / temperature).softmax(dim=-1)
    teacher_BC = (at_least_fp32(teacher_BC.detach()) / temperature).softmax(dim=-1)
    if keep_B is None:
        return student_BC, teacher_BC
    return student_BC * keep_B[:, None], teacher_BC * keep_B[:, None]
