"""Random logits and labels, and the signals and losses of any objective made of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trainables.config import OBJECTIVE_CONFIGS
from trainables.objectives import build_objective
from trainables.objectives.terms.divergences import confidence_B
from trainables.signals import Losses, Setting, Signals, TeacherSignal
from trainables.tensors import at_least_fp32

BANKS = ("weak", "strong")


def signals_of(students: dict[str, Tensor], teachers: dict[str, Tensor], labels_B: Tensor) -> Signals:
    # Embeddings of their own: a row of logits of another scale stands for each.
    teacher = {
        name: TeacherSignal(value_BC, confidence_B(value_BC), 1 + at_least_fp32(value_BC).square())
        for name, value_BC in teachers.items()
    }
    dense = {
        name: value_BC.detach()[:, :, None, None].expand(-1, -1, 2, 2) for name, value_BC in students.items()
    }
    rows_B = torch.arange(len(labels_B))
    embedding = {name: 1 + at_least_fp32(value_BC).square() for name, value_BC in students.items()}
    return Signals(students, teacher, labels_B, 7, rows_B=rows_B, dense=dense, embedding=embedding)


def random_logits(seed: int, rows: int, classes: int, scale: float = 2.0) -> dict[str, Tensor]:
    draw = np.random.default_rng(seed)
    return {
        name: torch.from_numpy(draw.normal(scale=scale, size=(rows, classes)).astype(np.float32))
        for name in BANKS
    }


def random_labels(seed: int, rows: int, classes: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(classes, size=rows))


def losses_of(name: str, signals: Signals) -> Losses:
    n_classes = signals.student["weak"].shape[-1]
    return build_objective(OBJECTIVE_CONFIGS[name](), Setting(64, n_classes, epochs=10))(signals)


def with_grad(logits: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value_BC.clone().requires_grad_() for name, value_BC in logits.items()}
