"""How far student and teacher are from linear correlation (DIST: Huang et al., NeurIPS 2022)."""

# B = samples in the batch, C = classes

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from trainables.objectives.terms.divergences import check_same_shape
from trainables.tensors import at_least_fp32

_EPS: Final = 1e-8


def sample_distance_B(student_BC: Tensor, teacher_BC: Tensor, *, temperature: float) -> Tensor:
    """T² (1 - correlation over classes of the softened probabilities) of each row, in [0, 2 T²].

    The correlation is a·b / (|a| |b| + 1e-8), a and b being the probabilities less their mean. So the 1e-8
    leaves T² · 1e-8 / (|a|² + 1e-8) where both are equal: about 1e-8 T² of a row that is sure of its class,
    more the nearer it is to all classes being equally likely, and T² where they are. Rounding in fp32 moves
    that by some 1e-7 T², below 0 too.

    Raises:
        ValueError: student and teacher differ in shape.
    """
    student_BC, teacher_BC = _softened(student_BC, teacher_BC, temperature)
    return temperature**2 * (1 - _correlation(student_BC, teacher_BC, dim=-1))


def class_distance(
    student_BC: Tensor, teacher_BC: Tensor, *, temperature: float, keep_B: Tensor | None = None
) -> Tensor:
    """T² (1 - correlation over the batch of the softened probabilities), mean over classes.

    The 1e-8 leaves the same here, |a|² being the sum over the batch: more than of a row where a class hardly
    varies, as one of many that no sample of the batch belongs to. A class that is equally likely in all
    samples has correlation 0, and leaves T². With two samples every correlation is 1 or -1, and with one it
    is 0. With a mask the correlation is over the samples kept, and the value is multiplied by their fraction:
    a mean over all samples, as terms of one sample have it.

    Raises:
        ValueError: student and teacher differ in shape.
    """
    student_BC, teacher_BC = _softened(student_BC, teacher_BC, temperature)
    if keep_B is None:
        return temperature**2 * (1 - _correlation(student_BC, teacher_BC, dim=0)).mean()
    keep_B1 = keep_B.to(student_BC.dtype)[:, None]
    correlation_C = _correlation(student_BC, teacher_BC, dim=0, weight=keep_B1)
    return temperature**2 * keep_B1.mean() * (1 - correlation_C).mean()


def _softened(student_BC: Tensor, teacher_BC: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    check_same_shape(student_BC, teacher_BC)
    student_BC = (at_least_fp32(student_BC) / temperature).softmax(dim=-1)
    return student_BC, (at_least_fp32(teacher_BC.detach()) / temperature).softmax(dim=-1)


def _correlation(one: Tensor, other: Tensor, *, dim: int, weight: Tensor | None = None) -> Tensor:
    one, other = _centred(one, dim, weight), _centred(other, dim, weight)
    # The norm's gradient at 0 is 0 in torch, so that a constant row or column gives 0 / eps and no NaN.
    norms: Tensor = torch.linalg.vector_norm(one, dim=dim) * torch.linalg.vector_norm(other, dim=dim)
    return (one * other).sum(dim=dim) / (norms + _EPS)


def _centred(values: Tensor, dim: int, weight: Tensor | None) -> Tensor:
    if weight is None:
        return values - values.mean(dim=dim, keepdim=True)
    mean = (weight * values).sum(dim=dim, keepdim=True) / weight.sum().clamp(min=1)
    return weight * (values - mean)
