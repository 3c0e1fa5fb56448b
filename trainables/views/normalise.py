"""From levels to what a network reads."""

from __future__ import annotations

from collections.abc import Sequence

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
    mean_C11 = torch.tensor(mean, dtype=torch.float32, device=images_BCHW.device)[:, None, None]
    std_C11 = torch.tensor(std, dtype=torch.float32, device=images_BCHW.device)[:, None, None]
    return images_BCHW.to(torch.float32).div_(255.0).sub_(mean_C11).div_(std_C11)
