"""From levels to what a network reads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

# B = samples, C = channels, H = height, W = width


def normalise(images_BCHW: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x / 255 - mean) / std for each channel: float32 BxCxHxW from uint8.

    Raises:
        ValueError: if mean and std do not have one number per channel, or a std is not positive.
    """
    channels = images_BCHW.shape[1]
    if len(mean) != channels or len(std) != channels:
        raise ValueError(
            f"the images have {channels} channels, but mean has {len(mean)} numbers and std {len(std)}"
        )
    if min(std) <= 0:
        raise ValueError(f"std must be positive for each channel, got {list(std)}")
    mean_C11, std_C11 = (_of_channels(tuple(numbers), images_BCHW.device) for numbers in (mean, std))
    return images_BCHW.to(torch.float32).div_(255.0).sub_(mean_C11).div_(std_C11)


@lru_cache(maxsize=64)
def _of_channels(numbers: tuple[float, ...], device: torch.device) -> Tensor:
    """Cx1x1 on the device. Kept: a training step that brings it to a GPU again would wait for that."""
    with torch.inference_mode(mode=False):
        return torch.tensor(numbers, dtype=torch.float32, device=device)[:, None, None]
