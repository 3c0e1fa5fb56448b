"""Which device `make gpu` tries: the GPU, or in a rehearsal the CPU."""

from __future__ import annotations

import os
from typing import Final

import torch

TRIED: Final = "STILLHOUSE_GPU_TEST_DEVICE"
"""Set to cpu, tests compare the CPU with itself, and benchmarks are small and their figures mean nothing."""


def tried_device() -> torch.device:
    """The device itself; that there is one, its user has to see."""
    return torch.device(os.environ.get(TRIED, "cuda"))
