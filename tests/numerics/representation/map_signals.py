"""Signals with feature maps of both networks, and objectives made for their shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from trainables.config.objective_base import ObjectiveBase
from trainables.objectives import build_objective
from trainables.objectives.terms.divergences import confidence_B
from trainables.signals import Objective, Setting, Signals, TeacherSignal

# B = samples in the batch, C = classes

Shapes = Mapping[str, tuple[int, ...]]


def drawn(seed: int, *shape: int) -> Tensor:
    """float64 from a normal distribution."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def setting_of(student: Shapes, teacher: Shapes, n_classes: int = 3) -> Setting:
    return Setting(8, n_classes, epochs=10, student_shapes=student, teacher_shapes=teacher)


def built(
    config: ObjectiveBase, student: Shapes, teacher: Shapes, *, seed: int = 3
) -> Objective[ObjectiveBase]:
    """The objective with the same weights each time, in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_objective(config, setting_of(student, teacher)).double()


def signals_with(
    student: Mapping[str, Tensor],
    teacher: Mapping[str, Tensor],
    *,
    labels: Iterable[int] | None = None,
    epoch: int = 1,
    n_classes: int = 3,
) -> Signals:
    """One bank with these features; logits are drawn."""
    rows = len(next(iter(student.values())))
    logits_BC, taught_BC = drawn(100, rows, n_classes), drawn(101, rows, n_classes)
    labels_B = torch.arange(rows) % n_classes if labels is None else torch.tensor(list(labels))
    return Signals(
        student={"weak": logits_BC.requires_grad_()},
        teacher={"weak": TeacherSignal(taught_BC, confidence_B(taught_BC), dict(teacher))},
        labels_B=labels_B,
        epoch=epoch,
        features={"weak": dict(student)},
        epochs=10,
    )


def random_features(seed: int, rows: int, shapes: Shapes, *, grad: bool = False) -> dict[str, Tensor]:
    return {
        name: drawn(seed + place, rows, *shape).requires_grad_(grad)
        for place, (name, shape) in enumerate(shapes.items())
    }


def in_fp32(signals: Signals) -> Signals:
    """The same signals in fp32, as a course gives them, with gradient to the student's."""

    def single(tensor: Tensor) -> Tensor:
        return tensor.detach().float()

    return replace(
        signals,
        student={bank: single(logits_BC).requires_grad_() for bank, logits_BC in signals.student.items()},
        teacher={bank: signal.each(single) for bank, signal in signals.teacher.items()},
        features={
            bank: {name: single(feature).requires_grad_() for name, feature in features.items()}
            for bank, features in signals.features.items()
        },
    )
