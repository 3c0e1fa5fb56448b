"""Tiny data, workbenches and courses that tests of the workbench, the loop and its files share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainables.config import (
    BankConfig,
    CeConfig,
    CropFlipStep,
    ObjectiveBase,
    RandAugmentStep,
    TrainingConfig,
    ViewsConfig,
)
from trainables.data import ImageSplit, TrainingData
from trainables.training.course import Course
from trainables.training.ranks import Share
from trainables.training.workbench import Workbench

CPU = torch.device("cpu")
CLASSES = ("ant", "bee", "cat")
CROP = CropFlipStep(op="crop_flip", padding=1)
VIEWS = ViewsConfig(
    weak=BankConfig(recipe=(CROP,), views=3),
    strong=BankConfig(recipe=(CROP, RandAugmentStep(op="randaugment")), views=2),
)
SHORT = TrainingConfig(epochs=5, batch_size=8, lr=0.05, checkpoint_every=2)
TIMINGS = ("seconds", "train/images_per_s", "train/teacher_seconds")


def separable_split(n: int, *, seed: int, shift: int = 0) -> ImageSplit:
    """Noisy 8x8 images with a bright row for each class; `shift` turns the labels into wrong ones."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, len(CLASSES), (n,), generator=generator)
    images = torch.randint(0, 80, (n, 1, 8, 8), dtype=torch.uint8, generator=generator)
    images[torch.arange(n), 0, 2 + labels] += 150
    return ImageSplit(images, (labels + shift) % len(CLASSES), 5 * torch.arange(n) + 2)


def separable_data(n_train: int = 44, *, shift: int = 0) -> TrainingData:
    train, selection = separable_split(n_train, seed=0), separable_split(30, seed=1, shift=shift)
    return TrainingData(train, selection, CLASSES, (0.2,), (0.2,), "d" * 64)


def small_workbench(data: TrainingData | None = None, **options: Any) -> Workbench:
    settings: dict[str, Any] = {"view_seed": 7, "device": CPU} | options
    return Workbench(data or separable_data(), VIEWS, **settings)


def small_student(seed: int = 0) -> nn.Module:
    """Batch norm and dropout: statistics and a generator that a resumption must bring back."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Flatten(),
            nn.Linear(256, len(CLASSES)),
        )


def small_course(
    training: TrainingConfig = SHORT, *, objective: ObjectiveBase | None = None, seed: int = 3
) -> Course:
    return Course(small_student(), objective or CeConfig(), training, seed)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def untimed(metrics: dict[str, float]) -> dict[str, float]:
    """Metrics without the figures that differ between two runs of the same computation."""
    return {name: value for name, value in metrics.items() if name not in TIMINGS}


@dataclass(frozen=True)
class Rank:
    """What one rank of so many does, without the others."""

    rank: int
    size: int

    def share(self, rows_B: Tensor) -> Share:
        own_B = torch.tensor_split(rows_B, self.size)[self.rank]
        return Share(own_B, len(own_B) / len(rows_B)) if len(own_B) else Share(rows_B[:1], 0.0)
