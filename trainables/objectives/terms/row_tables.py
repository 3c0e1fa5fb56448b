"""Tables with a row for each training sample, of which a step writes those of its batch."""

# B = samples in the batch, N = training samples

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def write_last(table_N: Tensor, rows_B: Tensor, values_B: Tensor) -> None:
    """Write values, Bx..., into a table, Nx..., in place and in the table's precision.

    Where a row comes several times in a batch, as it may with `training.sampling` pairs or class_balanced,
    its last value counts, whatever the device: an assignment by index leaves open on a GPU which one stays.
    """
    own_B = torch.arange(len(rows_B), device=rows_B.device)
    last_B = torch.where(rows_B[:, None] == rows_B, own_B, -1).amax(dim=-1)
    table_N[rows_B] = values_B[last_B].to(table_N.dtype)
