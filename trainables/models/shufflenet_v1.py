"""ShuffleNet (Zhang et al., CVPR 2018), three groups, for small images, as distillation's literature has it.

Layout and parameter names are those of Contrastive Representation Distillation (Tian et al., ICLR 2020):
the stem is a 1x1 convolution without pooling, the stages have 4, 8 and 4 units, and ReLU follows the
depthwise convolution too, where the paper has none.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from trainables.models.features.points import activated_layers, stages
from trainables.models.shuffle import ChannelShuffle
from trainables.models.widths import scaled

_GROUPS: Final = 3
_STEM: Final = 24
_CHANNELS: Final = (240, 480, 960)
_UNITS: Final = (4, 8, 4)
_BOTTLENECK: Final = 4

# B = samples in the batch, C = channels or classes, H, W = height and width


class ShuffleUnit(nn.Module):
    """relu(x + branch): 1x1 convolution of groups, shuffle, 3x3 one on each channel alone, 1x1 one of groups.

    A unit of stride 2 puts x, averaged over 3x3 pixels, beside the branch instead (the paper's figure 2c).
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, first_groups: int) -> None:
        super().__init__()
        channels = out_channels if stride == 1 else out_channels - in_channels
        hidden = _whole_groups(channels / _BOTTLENECK)
        self.conv1 = nn.Conv2d(in_channels, hidden, 1, groups=first_groups, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.shuffle = ChannelShuffle(first_groups)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv3 = nn.Conv2d(hidden, channels, 1, groups=_GROUPS, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.shortcut = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Feature maps, halved in height and width by a stride of 2."""
        out: Tensor = self.shuffle(self.relu(self.bn1(self.conv1(x_BCHW))))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        joined = out + x_BCHW if self.shortcut is None else torch.cat([out, self.shortcut(x_BCHW)], dim=1)
        activated: Tensor = self.relu(joined)
        return activated


class ShuffleNetV1(nn.Module):
    """A 1x1 stem, three stages that each halve the image, global average pooling and a linear layer."""

    STAGES = stages({"stem": "relu", **activated_layers(3)})

    def __init__(self, n_classes: int, in_channels: int, stem: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        first, second, third = channels
        self.conv1 = nn.Conv2d(in_channels, stem, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU()
        # The stem has too few channels to be divided (the paper's section 3.2).
        self.layer1 = _stage(stem, first, _UNITS[0], first_groups=1)
        self.layer2 = _stage(first, second, _UNITS[1], first_groups=_GROUPS)
        self.layer3 = _stage(second, third, _UNITS[2], first_groups=_GROUPS)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(third, n_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits BxC."""
        x = self.relu(self.bn1(self.conv1(images_BCHW)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(self.flatten(self.avgpool(x)))
        return logits


def _stage(in_channels: int, channels: int, units: int, *, first_groups: int) -> nn.Sequential:
    first = ShuffleUnit(in_channels, channels, stride=2, first_groups=first_groups)
    rest = (ShuffleUnit(channels, channels, stride=1, first_groups=_GROUPS) for _ in range(units - 1))
    return nn.Sequential(first, *rest)


def _whole_groups(channels: float) -> int:
    """The nearest number of channels, not 0, that the groups can share."""
    return max(1, round(channels / _GROUPS)) * _GROUPS


def shufflenet_v1(n_classes: int, in_channels: int, width: int | None) -> nn.Module:
    """ShuffleNet whose first stage has `width` channels, 240 where none is given.

    All channels are rounded to multiples of 3, and the first stage has 9 or more of them.
    """
    first = max(3 * _GROUPS, _whole_groups(width or _CHANNELS[0]))
    stem, *channels = scaled((_STEM, *_CHANNELS), first=_CHANNELS[0], width=first)
    return ShuffleNetV1(n_classes, in_channels, _whole_groups(stem), tuple(channels))
