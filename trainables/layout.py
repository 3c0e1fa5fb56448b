"""Which memory layout a network trains in: channels_last, which is faster on CPU, with one exception."""

from __future__ import annotations

import torch
from torch import nn

SAFE_CHANNELS = 16


def memory_format(model: nn.Module) -> torch.memory_format:
    """channels_last, unless the network has a narrow strided 1x1 convolution.

    With torch 2.13 on CPU, the backward pass of a strided 1x1 convolution in channels_last with 1 to 6
    input channels writes beyond its buffer and the process aborts later ("corrupted double-linked
    list"); `tests/unit/trainables/test_layout.py` shows it. Such a network trains contiguously.
    """
    narrow = any(
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and max(layer.stride) > 1
        and layer.in_channels < SAFE_CHANNELS
        for layer in model.modules()
    )
    return torch.contiguous_format if narrow else torch.channels_last
