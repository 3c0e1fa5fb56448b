"""Batch norm for modules beside a student, which a batch of one sample does not stop."""

# B = samples in the batch, C = channels, H, W = height and width

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class BatchNormOfMaps(nn.BatchNorm2d):
    """nn.BatchNorm2d, but a single value a channel is normalised by the running statistics.

    Of one number there is no deviation: PyTorch refuses it in training. Such a batch, one sample with a
    1x1 map, leaves the running statistics as they are.
    """

    def forward(self, map_BCHW: Tensor) -> Tensor:
        """The normalised map."""
        if map_BCHW.numel() > map_BCHW.shape[1]:
            return super().forward(map_BCHW)
        return F.batch_norm(
            map_BCHW,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=False,
            eps=self.eps,
        )
