"""What MFEF makes of feature maps: scales, attention, fusion (reconstructed from arXiv 2206.08224)."""

# B = samples in the batch, D = channels of a map, h, w = its height and width, M = networks

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_REDUCTION: Final = 16
"""Of channels within the channel gate."""
_SPATIAL: Final = 7
"""Side of the convolution of the spatial gate."""


class MultiScale(nn.Module):
    """Channels in groups, each convolved after the one before was added to it; all joined again."""

    def __init__(self, channels: int, groups: int) -> None:
        """Where the groups do not divide the channels, there are as many as divide both."""
        super().__init__()
        self.groups = groups = math.gcd(channels, groups)
        width = channels // groups
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(groups - 1))
        self.join = nn.Conv2d(channels, channels, 1)

    def forward(self, map_BDhw: Tensor) -> Tensor:
        """BxDxhxw: group 1 as it is; group j through its convolution of group j + what came out of j - 1."""
        first, *others = torch.chunk(map_BDhw, self.groups, dim=1)
        made = [first]
        for convolution, group in zip(self.convolutions, others, strict=True):
            made.append(convolution(group + made[-1]))
        joined: Tensor = self.join(torch.cat(made, dim=1))
        return joined


class ChannelGate(nn.Module):
    """BxDx1x1 in (0, 1): sigmoid(MLP(mean) + MLP(max)), over places; the MLP has D / 16 hidden units."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // _REDUCTION, 1)
        self.layers = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def forward(self, map_BDhw: Tensor) -> Tensor:
        """The gate of a map."""
        mean_BD, max_BD = map_BDhw.mean(dim=(2, 3)), map_BDhw.amax(dim=(2, 3))
        gate_BD: Tensor = torch.sigmoid(self.layers(mean_BD) + self.layers(max_BD))
        return gate_BD[:, :, None, None]


class SpatialGate(nn.Module):
    """Bx1xhxw in (0, 1): the sigmoid of a 7x7 convolution of mean and maximum over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2, 1, _SPATIAL, padding=_SPATIAL // 2)

    def forward(self, map_BDhw: Tensor) -> Tensor:
        """The gate of a map."""
        both_B2hw = torch.cat([map_BDhw.mean(dim=1, keepdim=True), map_BDhw.amax(dim=1, keepdim=True)], dim=1)
        return torch.sigmoid(self.convolution(both_B2hw))


class Extraction(nn.Module):
    """Several scales of a map, then a gate for its channels, then one for its places."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.scales = MultiScale(channels, groups)
        self.channel_gate = ChannelGate(channels)
        self.spatial_gate = SpatialGate()

    def forward(self, map_BDhw: Tensor) -> Tensor:
        """BxDxhxw."""
        made_BDhw = self.scales(map_BDhw)
        made_BDhw = made_BDhw * self.channel_gate(made_BDhw)
        gated_BDhw: Tensor = made_BDhw * self.spatial_gate(made_BDhw)
        return gated_BDhw


class Fusion(nn.Module):
    """Logits of the last maps of several networks, extracted, concatenated and convolved (1x1)."""

    def __init__(self, shapes: Sequence[tuple[int, ...]], *, groups: int, n_classes: int) -> None:
        """`shapes` are (D, h, w) of each network's map; the fused map has the shape of the first."""
        super().__init__()
        self.extract = nn.ModuleList(Extraction(shape[0], groups) for shape in shapes)
        self.places = tuple(shapes[0][1:])
        channels = shapes[0][0]
        self.join = nn.Conv2d(sum(shape[0] for shape in shapes), channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.head = nn.Linear(channels, n_classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """BxC logits; maps of other sizes are brought to that of the first, bilinearly."""
        made = [extract(one_BDhw) for extract, one_BDhw in zip(self.extract, maps, strict=True)]
        sized = [one if tuple(one.shape[2:]) == self.places else self._sized(one) for one in made]
        fused_BDhw = F.relu(self.norm(self.join(torch.cat(sized, dim=1))))
        logits_BC: Tensor = self.head(fused_BDhw.mean(dim=(2, 3)))
        return logits_BC

    def _sized(self, map_BDhw: Tensor) -> Tensor:
        return F.interpolate(map_BDhw, size=self.places, mode="bilinear", align_corners=False)
