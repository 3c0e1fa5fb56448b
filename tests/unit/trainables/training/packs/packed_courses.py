"""Courses that can share a pack, and the same courses alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.unit.trainables.cache.tiny_caches import TinyCache
from tests.unit.trainables.training.small_courses import (
    CLASSES,
    SHORT,
    VIEWS,
    separable_data,
    small_workbench,
    weights_of,
)
from trainables.config import KdConfig, ObjectiveBase, TrainingConfig
from trainables.data.splits import split_facts
from trainables.training.course import Course, TrainingResult
from trainables.training.loop import train
from trainables.training.packs.networks import Form
from trainables.training.packs.pack import Pack, Ticket
from trainables.training.progress.checkpoints import CheckpointFolder
from trainables.training.workbench import Workbench

KD = KdConfig(temperature=2.0, kd_weight=1.0)


def packed_student(seed: int) -> nn.Module:
    """Convolution, batch norm and a linear layer: what both forms compute; nothing is drawn in a pass."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 1, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(24, len(CLASSES)),
        )


def taught_workbench(folder: Path, banks: tuple[str, ...] = ("weak", "strong"), **options: Any) -> Workbench:
    """A teacher of the three classes has answered all views; the cache keeps fp32, so nothing is rounded."""
    data = separable_data()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, len(CLASSES)))
    tiny = TinyCache(folder, data, teacher, split_facts(data), views=VIEWS)
    tiny.build(banks)
    bench = small_workbench(data, cache=tiny.open(), **options)
    bench.compare_with(torch.randn(30, len(CLASSES), generator=torch.Generator().manual_seed(2)))
    return bench


def course(seed: int, objective: ObjectiveBase = KD, training: TrainingConfig = SHORT) -> Course:
    return Course(packed_student(seed), objective, training, seed)


@dataclass
class Told:
    """What came of a course."""

    epochs: list[int] = field(default_factory=list)
    metrics: list[dict[str, float]] = field(default_factory=list)
    ends: list[TrainingResult | Exception] = field(default_factory=list)

    def note(self, epoch: int, metrics: dict[str, float]) -> None:
        self.epochs.append(epoch)
        self.metrics.append(metrics)


def ticket(own: Course, told: Told, **options: object) -> Ticket:
    return Ticket(own, told.note, on_end=told.ends.append, **options)  # type: ignore[arg-type]


def alone(own: Course, workbench: Workbench, files: CheckpointFolder | None = None) -> Told:
    told = Told()
    told.ends.append(train(own, workbench, on_epoch=told.note, files=files))
    return told


def together(
    courses: Sequence[Course], workbench: Workbench, form: Form = Form.GROUPED
) -> tuple[list[Told], Pack]:
    """All courses from the first epoch to their ends."""
    each = [Told() for _ in courses]
    tickets = [ticket(own, told) for own, told in zip(courses, each, strict=True)]
    pack = Pack(tickets[0], workbench, form)
    for own in tickets:
        pack.admit(own)
    while pack.lanes:
        pack.train_epoch()
    return each, pack


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest distance of two states' tensors, relative to the size of the tensor."""
    assert one.keys() == other.keys()
    pairs = [(one[name].double(), other[name].double()) for name in one]
    return max(float((a - b).norm() / (1e-6 + b.norm())) for a, b in pairs)


def states(courses: Iterable[Course]) -> list[dict[str, Tensor]]:
    return [weights_of(own.model) for own in courses]


def again(courses: Iterable[Course], fresh: Callable[[int], nn.Module] = packed_student) -> list[Course]:
    """The same courses, not yet trained."""
    return [replace(own, model=fresh(own.seed)) for own in courses]
