"""The ways in which CRLD compares a student with a teacher: means over samples, those kept alone."""

# B = samples in the batch, C = classes

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

import torch
from torch import Tensor

from trainables.config.objectives import CrldBase, CrldConfig
from trainables.objectives.terms.correlations import class_distance, sample_distance_B
from trainables.objectives.terms.divergences import dkd_parts_B, kd_divergence_B, standardised
from trainables.objectives.terms.relations import batch_gap_B, class_gap_C


class Comparison(Protocol):
    """One view's student logits against one view's teacher logits."""

    def __call__(
        self, student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor, keep_B: Tensor, config: CrldConfig
    ) -> Tensor:
        """A mean over the batch in which samples that are not kept count as 0."""
        ...


def compare(
    student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor, keep_B: Tensor, config: CrldConfig
) -> Tensor:
    """The comparison that the configuration names.

    Raises:
        ValueError: student and teacher differ in shape.
    """
    return COMPARISONS[config.base](student_BC, teacher_BC, labels_B, keep_B, config)


def _kd(
    student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor, keep_B: Tensor, config: CrldConfig
) -> Tensor:
    student_BC, teacher_BC = _scaled(student_BC, teacher_BC, config)
    return _kept_mean(keep_B, kd_divergence_B(student_BC, teacher_BC, temperature=config.temperature))


def _dkd(
    student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor, keep_B: Tensor, config: CrldConfig
) -> Tensor:
    student_BC, teacher_BC = _scaled(student_BC, teacher_BC, config)
    tckd_B, nckd_B = dkd_parts_B(student_BC, teacher_BC, labels_B, temperature=config.temperature)
    return _kept_mean(keep_B, config.alpha * tckd_B + config.beta * nckd_B)


def _dist(
    student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor, keep_B: Tensor, config: CrldConfig
) -> Tensor:
    inter_B = sample_distance_B(student_BC, teacher_BC, temperature=config.temperature)
    intra = class_distance(student_BC, teacher_BC, temperature=config.temperature, keep_B=keep_B)
    return _kept_mean(keep_B, inter_B) + intra


def _mlld(
    student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor, keep_B: Tensor, config: CrldConfig
) -> Tensor:
    scaled = _scaled(student_BC, teacher_BC, config)
    total = student_BC.new_zeros(())
    for value in (2.0, 3.0, config.temperature, 5.0, 6.0):
        total = total + _kept_mean(keep_B, kd_divergence_B(*scaled, temperature=value))
        total = total + class_gap_C(student_BC, teacher_BC, temperature=value, keep_B=keep_B).mean()
        total = total + batch_gap_B(student_BC, teacher_BC, temperature=value, keep_B=keep_B).mean()
    return total


COMPARISONS: Final[Mapping[CrldBase, Comparison]] = MappingProxyType(
    {CrldBase.KD: _kd, CrldBase.DKD: _dkd, CrldBase.DIST: _dist, CrldBase.MLLD: _mlld}
)


def _scaled(student_BC: Tensor, teacher_BC: Tensor, config: CrldConfig) -> tuple[Tensor, Tensor]:
    if not config.standardise:
        return student_BC, teacher_BC
    return standardised(student_BC), standardised(teacher_BC.detach())


def _kept_mean(keep_B: Tensor, value_B: Tensor) -> Tensor:
    # where, not a product: a dropped row counts exactly 0 even if its divergence is infinite.
    return torch.where(keep_B, value_B, 0.0).mean()
