"""Signals of four quarter turns, made by hand or at random, and the objectives that are given them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from trainables.config import ObjectiveBase
from trainables.config.objective_base import ROTATED
from trainables.objectives import build_objective
from trainables.objectives.terms.divergences import confidence_B
from trainables.signals import Objective, Setting, Signals, TeacherSignal

# B = images, R = 4 B rows, four of each image

Features = Mapping[str, Tensor]


def by_bank(rows: Tensor) -> dict[str, Tensor]:
    """Rows 4 i + r as banks."""
    return {bank: rows[turns :: len(ROTATED)] for turns, bank in enumerate(ROTATED)}


def rotated_signals(
    student_RC: Tensor,
    teacher_RC: Tensor,
    labels_B: Tensor,
    *,
    student: Features | None = None,
    teacher: Features | None = None,
    **more: Any,
) -> Signals:
    """Logits and features as rows 4 i + r."""
    given = {name: by_bank(rows) for name, rows in (student or {}).items()}
    taught = {name: by_bank(rows) for name, rows in (teacher or {}).items()}
    answers = by_bank(teacher_RC)
    return Signals(
        student=by_bank(student_RC),
        teacher={
            bank: TeacherSignal(
                answers[bank],
                confidence_B(answers[bank]).float(),
                {name: banks[bank] for name, banks in taught.items()},
            )
            for bank in ROTATED
        },
        labels_B=labels_B,
        features={bank: {name: banks[bank] for name, banks in given.items()} for bank in ROTATED},
        **{"epoch": 1, **more},
    )


class RandomTurns:
    """Random logits and features for an objective of turns, of given sizes; leaves that gradient reaches."""

    def __init__(
        self,
        config: ObjectiveBase,
        *,
        images: int = 3,
        classes: int = 4,
        width: int = 5,
        teacher_width: int = 6,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        generator = torch.Generator().manual_seed(images + 10 * classes)

        def draw(*size: int) -> Tensor:
            values = torch.randn(4 * images, *size, generator=generator, dtype=torch.float64)
            return values.to(dtype).requires_grad_()

        self.config, self.n_classes = config, classes
        self.student_RC, self.teacher_RC = draw(classes), draw(classes)
        self.labels_B = torch.arange(images) % classes
        self.student = {
            name: draw(width, 4 // number, 4 // number) if name.startswith("stage") else draw(width)
            for number, name in enumerate(config.student_features, 1)
        }
        self.teacher = {
            name: draw(4 * classes) if name.startswith("branch") else draw(teacher_width)
            for name in config.teacher_features
        }

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What the student says."""
        return (self.student_RC, *self.student.values())

    @property
    def targets(self) -> tuple[Tensor, ...]:
        """What the teacher says."""
        return (self.teacher_RC, *self.teacher.values())

    def signals(self, inputs: tuple[Tensor, ...] | None = None, **more: Any) -> Signals:
        logits, *features = self.inputs if inputs is None else inputs
        student = dict(zip(self.student, features, strict=True))
        labels_B = more.pop("labels_B", self.labels_B)
        return rotated_signals(
            logits, self.teacher_RC, labels_B, student=student, teacher=self.teacher, **more
        )

    def permuted(self, order_B: Tensor) -> Signals:
        """The same images in another order."""
        rows = (4 * order_B[:, None] + torch.arange(4)).flatten()
        one = rotated_signals(
            self.student_RC[rows],
            self.teacher_RC[rows],
            self.labels_B[order_B],
            student={name: value[rows] for name, value in self.student.items()},
            teacher={name: value[rows] for name, value in self.teacher.items()},
        )
        return replace(one, epoch=1)

    def objective(self, config: ObjectiveBase | None = None) -> Objective[Any]:
        torch.manual_seed(0)
        setting = Setting(
            64,
            self.n_classes,
            epochs=10,
            student_shapes={name: tuple(value.shape[1:]) for name, value in self.student.items()},
            teacher_shapes={name: tuple(value.shape[1:]) for name, value in self.teacher.items()},
        )
        return build_objective(config or self.config, setting).to(self.student_RC.dtype)
