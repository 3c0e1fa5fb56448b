"""A small data set of a user's own and unlabelled images for it, some of which it has itself."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

N_OWN = 30
CLASSES = 3


def dataset(split: str) -> TensorDataset:
    """Noisy grey 8x8 images with a bright row for each class."""
    return TensorDataset(*_noise({"train": 90, "test": 24}[split], seed={"train": 0, "test": 1}[split]))


def unlabelled(n: int = N_OWN) -> Tensor:
    """Images of the same kind, and behind them all of the test part and the training part."""
    own = _noise(n, seed=2)[0]
    return torch.cat([own, *(dataset(split).tensors[0] for split in ("test", "train"))])


def fresh(n: int = N_OWN) -> Tensor:
    """Images of the same kind alone."""
    return _noise(n, seed=2)[0]


def drawn_anew() -> Tensor:
    return torch.randint(0, 255, (N_OWN, 1, 8, 8), dtype=torch.uint8)


def of_another_shape() -> Tensor:
    return torch.zeros(4, 1, 6, 6)


def all_known() -> Tensor:
    return dataset("test").tensors[0]


def _noise(n: int, *, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (n,), generator=generator)
    images = torch.randint(0, 120, (n, 1, 8, 8), dtype=torch.uint8, generator=generator)
    images[torch.arange(n), 0, 2 + labels] += 130
    return images, labels
