"""The two fixtures of the worked numbers, in float64, and the signals that objectives are given in tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from tests.numerics.feature_stand_ins import QUARTER_TURNS, features_of, images_of, peers_of
from trainables.objectives.terms.divergences import confidence_B
from trainables.signals import Signals, TeacherSignal

# B = samples in the batch, C = classes
Rows = list[list[float]]

WEAK_STUDENT: Final = [[1.0, 0.5, -0.5, 0.0], [0.2, -0.3, 0.8, 0.1]]
WEAK_TEACHER: Final = [[3.0, 1.0, 0.0, -1.0], [0.5, 0.0, 1.5, -0.5]]
STRONG_STUDENT: Final = [[0.6, 0.7, -0.2, 0.1], [0.1, 0.0, 0.4, 0.3]]
STRONG_TEACHER: Final = [[1.2, 0.8, 0.1, -0.4], [0.9, 0.2, 1.0, -0.1]]
LABELS: Final = [0, 2]
THREE_STUDENT: Final = [*WEAK_STUDENT, [-0.4, 0.9, 0.3, 0.2]]
THREE_TEACHER: Final = [*WEAK_TEACHER, [0.0, 2.0, 0.5, 0.5]]
THREE_LABELS: Final = [0, 2, 1]

DIGITS: Final = 6e-7
"""Half a unit of the sixth decimal, to which the numbers were worked out, and a little."""


def logits(rows: Rows, *, grad: bool = False) -> Tensor:
    """float64 logits."""
    return torch.tensor(rows, dtype=torch.float64, requires_grad=grad)


def signals_of(
    student: Tensor | Mapping[str, Tensor],
    teacher: Tensor | Mapping[str, Tensor] | None,
    labels: list[int],
    **more: Any,
) -> Signals:
    """Signals of one bank, `weak`, or of those given; the confidence is fp32, as a cache gives it.

    Features, images and a network beside the student are stand-ins.
    """
    students = {"weak": student} if isinstance(student, Tensor) else student
    teachers = {"weak": teacher} if isinstance(teacher, Tensor) else teacher or {}
    stand_ins = {
        "rows_B": torch.arange(len(labels)),
        "features": {bank: features_of(value_BC) for bank, value_BC in students.items()},
        "images": {bank: images_of(bank, len(labels)) for bank in students},
        "peers": peers_of(students),
    }
    return Signals(
        student=students,
        teacher={
            bank: TeacherSignal(value_BC, confidence_B(value_BC).float(), features_of(value_BC))
            for bank, value_BC in teachers.items()
        },
        labels_B=torch.tensor(labels),
        **{"epoch": 1, **stand_ins, **more},
    )


def one_view(*, grad: bool = False, **more: Any) -> Signals:
    """F1, the weak view alone."""
    return signals_of(logits(WEAK_STUDENT, grad=grad), logits(WEAK_TEACHER), LABELS, **more)


def three_rows(*, grad: bool = False, **more: Any) -> Signals:
    """F2."""
    return signals_of(logits(THREE_STUDENT, grad=grad), logits(THREE_TEACHER), THREE_LABELS, **more)


def two_views(*, grad: bool = False, **more: Any) -> Signals:
    """F1, both views."""
    students = {"weak": logits(WEAK_STUDENT, grad=grad), "strong": logits(STRONG_STUDENT, grad=grad)}
    teachers = {"weak": logits(WEAK_TEACHER), "strong": logits(STRONG_TEACHER)}
    return signals_of(students, teachers, LABELS, **more)


def all_views(*, grad: bool = False, **more: Any) -> Signals:
    """F2 on both views, and on the weak one turned: three rows, the strong view's third one made up."""
    students = {"weak": THREE_STUDENT, "strong": [*STRONG_STUDENT, [0.3, 0.2, -0.1, 0.5]]}
    teachers = {"weak": THREE_TEACHER, "strong": [*STRONG_TEACHER, [0.1, 1.1, 0.4, 0.3]]}
    for turns, bank in enumerate(QUARTER_TURNS, start=1):
        students[bank] = [[*row[turns:], *row[:turns]] for row in THREE_STUDENT]
        teachers[bank] = [[(1 - 0.1 * turns) * value for value in row] for row in THREE_TEACHER]
    students_BC = {bank: logits(rows, grad=grad) for bank, rows in students.items()}
    teachers_BC = {bank: logits(rows) for bank, rows in teachers.items()}
    return signals_of(students_BC, teachers_BC, THREE_LABELS, **more)


def gradient(total: Tensor, signals: Signals, bank: str = "weak") -> Tensor:
    """Of a loss, with respect to the student's logits on a bank."""
    (found_BC,) = torch.autograd.grad(total, signals.student[bank], retain_graph=True)
    return found_BC


def agrees_with_differences(loss_of: Callable[[Tensor], Tensor], rows: Rows) -> bool:
    """Whether the gradient of a loss of student logits is that of finite differences, in float64."""
    return bool(torch.autograd.gradcheck(loss_of, logits(rows, grad=True), rtol=1e-6, atol=1e-9))
