"""ShuffleNetV2 1x (Ma et al., ECCV 2018) for small images, as distillation's literature has it.

Layout and parameter names are those of Contrastive Representation Distillation (Tian et al., ICLR 2020):
the stem is a 1x1 convolution without pooling; stages of 4, 8 and 4 units are those of the paper's table 5.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from trainables.models.features.points import Point, stages
from trainables.models.shuffle import ChannelShuffle
from trainables.models.widths import scaled

_STEM: Final = 24
_CHANNELS: Final = (116, 232, 464)
_UNITS: Final = (4, 8, 4)
_HEAD: Final = 1024
_WIDE: Final = 244
"""From this width of the first stage on, that of the paper's 2x, the head has twice as many channels."""

# B = samples in the batch, C = channels or classes, H, W = height and width


class SplitUnit(nn.Module):
    """Half of the channels pass as they are, the others through three convolutions; then all are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(half, half, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.relu = nn.ReLU()
        self.shuffle = ChannelShuffle(2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Feature maps of the same shape."""
        passed, out = x_BCHW.chunk(2, dim=1)
        out = self.relu(self.bn1(self.conv1(out)))
        out = self.bn2(self.conv2(out))
        out = self.relu(self.bn3(self.conv3(out)))
        shuffled: Tensor = self.shuffle(torch.cat([passed, out], dim=1))
        return shuffled


class DownUnit(nn.Module):
    """Halves height and width: both branches see all channels, and each gives half of the new ones."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, 2, padding=1, groups=in_channels, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = nn.Conv2d(half, half, 3, 2, padding=1, groups=half, bias=False)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = nn.Conv2d(half, half, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(half)
        self.relu = nn.ReLU()
        self.shuffle = ChannelShuffle(2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Feature maps of half the height and width."""
        short = self.relu(self.bn2(self.conv2(self.bn1(self.conv1(x_BCHW)))))
        long = self.relu(self.bn3(self.conv3(x_BCHW)))
        long = self.relu(self.bn5(self.conv5(self.bn4(self.conv4(long)))))
        shuffled: Tensor = self.shuffle(torch.cat([short, long], dim=1))
        return shuffled


class ShuffleNetV2(nn.Module):
    """A 1x1 stem, three stages that each halve the image, a 1x1 head, global pooling and a linear layer."""

    # The first two end in a shuffle of channels of which half were activated: they have no map before that.
    STAGES = stages(
        {
            "stem": Point("relu", call=0),
            "stage1": "layer1",
            "stage2": "layer2",
            "stage3": Point("relu", call=1),
            "stage3.pre": "bn2",
        }
    )

    def __init__(self, n_classes: int, in_channels: int, channels: tuple[int, ...], head: int) -> None:
        super().__init__()
        first, second, third = channels
        self.conv1 = nn.Conv2d(in_channels, _STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM)
        self.relu = nn.ReLU()
        self.layer1 = _stage(_STEM, first, _UNITS[0])
        self.layer2 = _stage(first, second, _UNITS[1])
        self.layer3 = _stage(second, third, _UNITS[2])
        self.conv2 = nn.Conv2d(third, head, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(head)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(head, n_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits BxC."""
        x = self.relu(self.bn1(self.conv1(images_BCHW)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        logits: Tensor = self.linear(self.flatten(self.avgpool(x)))
        return logits


def _stage(in_channels: int, channels: int, units: int) -> nn.Sequential:
    return nn.Sequential(DownUnit(in_channels, channels), *(SplitUnit(channels) for _ in range(units - 1)))


def shufflenet_v2(n_classes: int, in_channels: int, width: int | None) -> nn.Module:
    """ShuffleNetV2 whose first stage has `width` channels, 116 where none is given; odd ones get one more.

    As in the paper, stem and head keep their channels in narrower and wider networks, but for the head of
    the widest.
    """
    first = (width or _CHANNELS[0]) + (width or 0) % 2
    channels = scaled(_CHANNELS, first=_CHANNELS[0], width=first)
    return ShuffleNetV2(n_classes, in_channels, channels, _HEAD if first < _WIDE else 2 * _HEAD)
