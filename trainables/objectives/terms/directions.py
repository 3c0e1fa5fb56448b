"""Vectors brought to length 1."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from trainables.tensors import at_least_fp32

_LEAST_LENGTH: Final = 1e-4
"""Shorter vectors are divided by this, so that one of zeros has a bounded gradient."""


def directions(vectors: Tensor, *, dim: int) -> Tensor:
    """Each vector along `dim` divided by its length, at least in fp32."""
    vectors = at_least_fp32(vectors)
    length: Tensor = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    return vectors / length.clamp(min=_LEAST_LENGTH)
