"""A sample of the real teacher: how fast it is, and what it says, before a whole cache is computed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from trainables.config import Recipe
from trainables.teacher.live import LiveTeacher

SAMPLE_ROWS: Final = 2048
TIME_S: Final = 4.0
"""Least time over which the speed is measured, where there are enough rows."""


@dataclass(frozen=True)
class TeacherSample:
    """What a few batches of the teacher showed."""

    images_per_s: float
    """Rendered and answered, on the device of the teacher, writing not included."""
    logits_BC: Tensor
    """fp32, on the CPU, of evenly spread rows."""


def sample_teacher(
    teacher: LiveTeacher,
    recipe: Recipe,
    *,
    n_rows: int,
    batch_size: int,
    clock: Callable[[], float] = time.perf_counter,
) -> TeacherSample:
    """Time batches of view 0 of evenly spread rows, after one that warms up and is not counted.

    Raises:
        CacheError: the teacher's output is not one logit per class.
    """
    count = min(n_rows, max(SAMPLE_ROWS, batch_size))
    rows_B = torch.linspace(0, n_rows - 1, count).round().long()
    batches = list(torch.split(rows_B, batch_size))
    answers = [teacher.logits(recipe, 0, batches[0])]
    began, timed = clock(), 0
    while True:
        batch = batches[len(answers) % len(batches)]
        answers.append(teacher.logits(recipe, 0, batch))
        timed += len(batch)
        seconds = clock() - began
        if seconds >= TIME_S or len(answers) > len(batches):
            break
    logits_BC = torch.cat(answers[: len(batches)])
    return TeacherSample(timed / max(seconds, 1e-9), logits_BC)
