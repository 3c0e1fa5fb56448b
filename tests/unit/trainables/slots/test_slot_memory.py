from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn

from trainables.slots.worker import let_go


def test_a_failed_job_leaves_nothing_of_its_student_in_memory() -> None:
    """While the error itself is still at hand, as it is where the slot tells of it."""
    students: list[weakref.ref[Any]] = []

    def train() -> None:
        student = nn.Linear(2, 2)
        students.append(weakref.ref(student))
        raise torch.OutOfMemoryError("CUDA out of memory")

    try:
        train()
    except torch.OutOfMemoryError as error:
        assert students[0]() is not None
        let_go(error)
        assert students[0]() is None
        assert "out of memory" in str(error)
