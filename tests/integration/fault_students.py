"""Networks of users that misbehave; named as factories by the tests of faults, and run by workers."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor, nn

from trainables.config import ModelConfig, ModelName
from trainables.models import build_model

OUT_OF_MEMORY = 61
RAISES = 67
DIVERGES = 71
"""Batch sizes that the moody student cannot bear, and what they make it do."""


class Slow(nn.Module):
    """A linear student that sleeps in each training batch and writes a line about it."""

    def __init__(self, n_classes: int, seconds: float, diary: str) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, n_classes))
        self._seconds = seconds
        self._diary = Path(diary) if diary else None

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            if self._diary is not None:
                with self._diary.open("a") as file:
                    file.write(f"{time.time()}\n")
            time.sleep(self._seconds)
        logits: Tensor = self.body(images)
        return logits


class Moody(nn.Module):
    """A linear student that fails at some batch sizes, from its second epoch on."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, n_classes))
        self._trained = False

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.body(images)
        if not self.training:
            self._trained = True
        elif self._trained and len(images) == OUT_OF_MEMORY:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        elif self._trained and len(images) == RAISES:
            raise RuntimeError("the student lost\nits temper")
        elif self._trained and len(images) == DIVERGES:
            return logits / 0.0
        return logits


class Ponderous(nn.Module):
    """A linear teacher that takes its time for each batch that it is asked about."""

    def __init__(self, n_classes: int, seconds: float) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, n_classes))
        self._seconds = seconds

    def forward(self, images: Tensor) -> Tensor:
        time.sleep(self._seconds)
        logits: Tensor = self.body(images)
        return logits


class Hesitant(nn.Module):
    """A residual teacher of three stages that takes its time for each batch, but not while it is trained."""

    def __init__(self, n_classes: int, seconds: float) -> None:
        super().__init__()
        self.body = build_model(
            ModelConfig(name=ModelName.RESNET8, width=4), n_classes=n_classes, in_channels=1
        )
        self._seconds = seconds

    def forward(self, images: Tensor) -> Tensor:
        if not self.training:
            time.sleep(self._seconds)
        logits: Tensor = self.body(images)
        return logits


def slow(n_classes: int, seconds: float = 0.05, diary: str = "") -> nn.Module:
    return Slow(n_classes, seconds, diary)


def moody(n_classes: int) -> nn.Module:
    return Moody(n_classes)


def ponderous(n_classes: int, seconds: float = 0.2) -> nn.Module:
    return Ponderous(n_classes, seconds)


def hesitant(n_classes: int, seconds: float = 0.15) -> nn.Module:
    return Hesitant(n_classes, seconds)
