"""Vectors brought to length 1, of which those near 0 get neither direction nor gradient."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from trainables.tensors import at_least_fp32

LEAST_LENGTH: Final = 1e-4
"""The gradient of a direction is as large as its vector is short: shorter ones have none."""


def unit_or_zero(vectors: Tensor, *, least: float = LEAST_LENGTH, added: float = 0.0) -> Tensor:
    """Each vector of the last dimension divided by its length, at least in fp32; 0 if that is below `least`.

    A number may be added to the length, as released code of several papers does.

    Unlike `directions`, which divides those by a constant: an image whose features are all 0, which a ReLU
    can give, would have a gradient of some thousands.
    """
    vectors = at_least_fp32(vectors)
    length: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    # A length of infinity gives direction and gradient 0.
    return vectors / (length + added).masked_fill(length < least, torch.inf)
