"""Signals, and settings, of embeddings and maps that tests give by hand, in float64 unless they say else."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from trainables.objectives.terms.divergences import confidence_B
from trainables.signals import Setting, Signals, TeacherClassifier, TeacherSignal

# B = samples in the batch, C = classes, D = numbers in an embedding

EMBEDDING: Final = "embedding"
# The reference's: teacher's embeddings and classifier, and what a student makes of the same images.
TAUGHT: Final = [[1.0, 0.0], [0.0, 1.0]]
GIVEN: Final = [[0.5, 0.5], [1.0, 1.0]]
WEIGHT: Final = [[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]
BIAS: Final = [0.0, 1.0, -1.0]
OWN_LOGITS: Final = [[1.0, 0.0, -1.0], [0.0, 0.0, 0.0]]
TEACHER_LOGITS: Final = [[1.0, 1.0, 0.0], [0.0, 3.0, 0.0]]


def numbers(rows: Any, *, grad: bool = False) -> Tensor:
    """float64."""
    return torch.tensor(rows, dtype=torch.float64, requires_grad=grad)


def random(seed: int, *shape: int, grad: bool = False, dtype: torch.dtype = torch.float64) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.to(dtype).requires_grad_(grad)


def classifier(*, weight: Any = WEIGHT, bias: Any = BIAS) -> TeacherClassifier:
    return TeacherClassifier(numbers(weight), numbers(bias))


def signals_of(
    given: Tensor,
    taught_BD: Tensor,
    *,
    own_BC: Tensor | None = None,
    teacher_BC: Tensor | None = None,
    labels: list[int] | None = None,
    name: str = EMBEDDING,
    **more: Any,
) -> Signals:
    """Of one view, `weak`: the student's feature of that name, and the teacher's embedding.

    Logits are the reference's two rows, over and over, unless they are given.
    """
    rows = len(given)
    own_BC = numbers(OWN_LOGITS).repeat(rows, 1)[:rows].to(given.dtype) if own_BC is None else own_BC
    if teacher_BC is None:
        teacher_BC = numbers(TEACHER_LOGITS).repeat(rows, 1)[:rows].to(given.dtype)
    labels = [row % own_BC.shape[-1] for row in range(rows)] if labels is None else labels
    return Signals(
        student={"weak": own_BC},
        teacher={"weak": TeacherSignal(teacher_BC, confidence_B(teacher_BC), {EMBEDDING: taught_BD})},
        labels_B=torch.tensor(labels),
        features={"weak": {name: given}},
        **{"epoch": 1, "epochs": 10, "rows_B": torch.arange(rows), **more},
    )


def setting_for(
    given: Tensor, taught_BD: Tensor, *, name: str = EMBEDDING, labels: list[int] | None = None, **more: Any
) -> Setting:
    """For features of these shapes; the training split has the labels given, or 0, 1, 2 in turn."""
    labels_N = torch.tensor([row % 3 for row in range(12)] if labels is None else labels)
    held = {
        "n_samples": len(labels_N),
        "n_classes": 3,
        "epochs": 10,
        "labels_N": labels_N,
        "student_shapes": {name: tuple(given.shape[1:])},
        "teacher_shapes": {EMBEDDING: tuple(taught_BD.shape[1:])},
        "classifier": classifier() if taught_BD.shape[1] == 2 else None,
    }
    return Setting(**{**held, **more})


def is_finite(total: Tensor, inputs: list[Tensor]) -> bool:
    """Whether a loss and its gradients are."""
    gradients = torch.autograd.grad(total, inputs, allow_unused=True)
    return bool(total.isfinite()) and all(
        bool(gradient.isfinite().all()) for gradient in gradients if gradient is not None
    )
