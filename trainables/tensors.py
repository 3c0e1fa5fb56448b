"""Tensors on their way: to a device, in a memory layout, in a precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

SAFE_CHANNELS = 16


def to_device(batch: Tensor, device: torch.device) -> Tensor:
    """The batch on the device; for a GPU through pinned memory, and not waited for.

    A training loop that never asks a GPU for a result runs ahead of it, so the next batch is gathered and
    on its way while the GPU computes on this one. PyTorch keeps the pinned memory until the copy is done.
    """
    if device.type != "cuda" or batch.device.type != "cpu":
        return batch.to(device)
    return batch.pin_memory().to(device, non_blocking=True)


def memory_format(model: nn.Module) -> torch.memory_format:
    """channels_last, unless the network has a narrow strided 1x1 convolution.

    With torch 2.13 on CPU, the backward pass of a strided 1x1 convolution in channels_last with 1 to 6
    input channels writes beyond its buffer and the process aborts later ("corrupted double-linked
    list"); `tests/unit/trainables/test_tensors.py` shows it. Such a network trains contiguously.
    """
    narrow = any(
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and max(layer.stride) > 1
        and layer.in_channels < SAFE_CHANNELS
        for layer in model.modules()
    )
    return torch.contiguous_format if narrow else torch.channels_last


def at_least_fp32(values: Tensor) -> Tensor:
    """The same values in fp32, or in float64 when they come so."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


@contextmanager
def threads_beside_slots(threads: int) -> Iterator[None]:
    """So many threads for PyTorch in this process for a block, where there is no GPU.

    The driver then shares its cores with slots. With a thread for each core, those that wait for the others
    at the end of an operation spin: a tenth of a short run's CPU seconds went there, and slots waited for it.
    """
    before = torch.get_num_threads()
    if not torch.cuda.is_available():
        torch.set_num_threads(min(threads, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)
