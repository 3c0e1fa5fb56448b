"""Rows and signals for tests of relations between samples: the reference's S3 and T3, and random ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from trainables.objectives.terms.divergences import confidence_B
from trainables.signals import Signals, TeacherSignal

# B = samples in the batch, C = classes, D = numbers in an embedding

S3: Final = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], dtype=torch.float64)
T3: Final = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
STUDENT_LOGITS: Final = torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
TEACHER_LOGITS: Final = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0]], dtype=torch.float64)
"""ZS and ZT of the reference: KL at T = 4 is 0.553157."""


def drawn(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    """Normal numbers in float64."""
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(seed: int, width: int) -> Tensor:
    """A random orthogonal matrix."""
    orthogonal: Tensor = torch.linalg.qr(drawn(seed, width, width))[0]
    return orthogonal


def signals_with(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], **more: Any) -> Signals:
    """Signals of the bank `weak` with these features, and the reference's logits, again and again."""
    rows = len(next(iter(student.values())))
    like = next(iter(student.values())).detach()
    student_BC, teacher_BC = (
        logits_BC[torch.arange(rows) % 2].to(like) for logits_BC in (STUDENT_LOGITS, TEACHER_LOGITS)
    )
    given: dict[str, Any] = {"labels_B": torch.arange(rows) % 2, "epoch": 1} | more
    return Signals(
        student={"weak": student_BC},
        teacher={"weak": TeacherSignal(teacher_BC, confidence_B(teacher_BC), dict(teacher))},
        features={"weak": dict(student)},
        **given,
    )
