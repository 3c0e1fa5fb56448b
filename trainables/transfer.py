"""From the host's memory to the device that trains, without either waiting for the other."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(batch: Tensor, device: torch.device) -> Tensor:
    """The batch on the device; for a GPU through pinned memory, and not waited for.

    A training loop that never asks a GPU for a result runs ahead of it, so the next batch is gathered and
    on its way while the GPU computes on this one. PyTorch keeps the pinned memory until the copy is done.
    """
    if device.type != "cuda" or batch.device.type != "cpu":
        return batch.to(device)
    return batch.pin_memory().to(device, non_blocking=True)
