"""What an objective is given and what it returns: the contract between loop, cache and objectives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

# B = samples in the batch, C = classes


@dataclass(frozen=True)
class TeacherSignal:
    """The teacher's answer to one view of a batch, without gradient."""

    logits_BC: Tensor
    """fp32; from a cache up to a constant per row (z - max z when it keeps fp16)."""
    confidence_B: Tensor
    """fp32; largest softmax probability at temperature 1, of the logits as kept."""


@dataclass(frozen=True)
class Signals:
    """One training step's signals, by bank (`weak`, `strong`)."""

    student: Mapping[str, Tensor]
    """Student logits BxC of each bank that the objective names."""
    teacher: Mapping[str, TeacherSignal]
    labels_B: Tensor
    """int64 class indices."""
    epoch: int
    """Counted from 1."""


@dataclass(frozen=True)
class Losses:
    """What an objective returns for one step."""

    total: Tensor
    """The scalar to minimise."""
    terms: Mapping[str, Tensor]
    """Named scalar terms, before their weights (T² included), each logged on its own."""
    gauges: Mapping[str, Tensor]
    """Named scalars that are no losses, such as the fraction of samples kept by a threshold."""


class Objective(Protocol):
    """A distillation objective: a pure function of the signals."""

    def __call__(self, signals: Signals) -> Losses:
        """The losses of one step."""
        ...
