"""Networks that see images at another resolution than the data's, by a first layer that resizes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn

NETWORK: Final = "network"
"""Before the names of a resized network's weights."""


class Resize(nn.Module):
    """Images BxCxHxW to BxCxsidexside: bilinear, and antialiased where they become smaller."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """The resized images; those of that size already are returned as they are."""
        if images_BCHW.shape[-2:] == (self.side, self.side):
            return images_BCHW
        return F.interpolate(
            images_BCHW, size=(self.side, self.side), mode="bilinear", align_corners=False, antialias=True
        )

    def extra_repr(self) -> str:
        """For the printed network."""
        return f"side={self.side}"


def resized(network: nn.Module, side: int) -> nn.Module:
    """The network behind a layer that resizes its images; its weights have the prefix `network.`."""
    return nn.Sequential(OrderedDict({"resize": Resize(side), NETWORK: network}))
