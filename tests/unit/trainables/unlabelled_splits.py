"""Data with unlabelled images behind them, made in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from trainables.config.data import UnlabelledConfig, UnlabelledFacts
from trainables.data import ImageSplit, TrainingData
from trainables.data.splits import FIRST_UNLABELLED_ID, NO_LABEL, Unlabelled


def with_unlabelled(data: TrainingData, images: Tensor, **config: Any) -> TrainingData:
    """The same data, with these images (every second place of their source) behind them."""
    ids = FIRST_UNLABELLED_ID + 2 * torch.arange(len(images))
    split = ImageSplit(images, torch.full((len(images),), NO_LABEL), ids)
    facts = UnlabelledFacts(images_digest="8" * 64, count=len(images))
    settings = UnlabelledConfig(factory="made:here", **config)
    return replace(data, unlabelled=Unlabelled(split, facts, settings))


def noise(n: int, *, seed: int = 9, channels: int = 1, side: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, side, side), dtype=torch.uint8, generator=generator)
