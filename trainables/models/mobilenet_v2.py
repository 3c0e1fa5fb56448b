"""MobileNetV2 for small images (Sandler et al., CVPR 2018), as distillation's literature has it.

Layout and parameter names are those of Contrastive Representation Distillation (Tian et al., ICLR 2020):
the width multiplier is 0.5, the second group of blocks does not halve the image, every block begins with
a 1x1 convolution (the paper leaves out that of the first block), and ReLU stands for the paper's ReLU6.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final, NamedTuple

from torch import Tensor, nn

from trainables.models.features.points import stages
from trainables.models.widths import scaled


class _Group(NamedTuple):
    """A row of the paper's table 2: blocks of the same width, of which the first may halve the image."""

    expansion: int
    blocks: int
    stride: int


_GROUPS: Final = (
    _Group(1, 1, 1),
    _Group(6, 2, 1),
    _Group(6, 3, 2),
    _Group(6, 4, 2),
    _Group(6, 3, 1),
    _Group(6, 3, 2),
    _Group(6, 1, 1),
)
_STEM: Final = 32
_CHANNELS: Final = (16, 24, 32, 64, 96, 160, 320)
_HEAD: Final = 1280
_WIDTH: Final = 8

# B = samples in the batch, C = channels or classes, H, W = height and width


class InvertedResidual(nn.Module):
    """1x1 convolution to more channels, 3x3 one on each channel alone, 1x1 one back without activation."""

    def __init__(self, in_channels: int, channels: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = expansion * in_channels
        self.is_residual = stride == 1 and in_channels == channels
        self.conv = nn.Sequential(
            *_convolution(in_channels, hidden, kernel=1),
            *_convolution(hidden, hidden, kernel=3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Feature maps, halved in height and width by a stride of 2."""
        out: Tensor = self.conv(x_BCHW)
        return x_BCHW + out if self.is_residual else out


class MobileNetV2(nn.Module):
    """A 3x3 stem of stride 2, seven groups of inverted residuals, a 1x1 head, pooling and a linear layer."""

    # Groups end without an activation, but for the head.
    STAGES = stages(
        {
            "stem": "conv1",
            **dict.fromkeys(("stage1", "stage1.pre"), "blocks.1"),
            **dict.fromkeys(("stage2", "stage2.pre"), "blocks.2"),
            **dict.fromkeys(("stage3", "stage3.pre"), "blocks.4"),
            "stage4": "conv2",
            "stage4.pre": "conv2.1",
        }
    )

    def __init__(
        self, n_classes: int, in_channels: int, *, stem: int, channels: tuple[int, ...], head: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(*_convolution(in_channels, stem, kernel=3, stride=2))
        steps = zip(pairwise((stem, *channels)), _GROUPS, strict=True)
        self.blocks = nn.Sequential(*(_group(before, after, group) for (before, after), group in steps))
        self.conv2 = nn.Sequential(*_convolution(channels[-1], head, kernel=1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Sequential(nn.Linear(head, n_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits BxC."""
        x = self.conv2(self.blocks(self.conv1(images_BCHW)))
        logits: Tensor = self.classifier(self.flatten(self.avgpool(x)))
        return logits


def _group(in_channels: int, channels: int, group: _Group) -> nn.Sequential:
    first = InvertedResidual(in_channels, channels, expansion=group.expansion, stride=group.stride)
    rest = (
        InvertedResidual(channels, channels, expansion=group.expansion, stride=1)
        for _ in range(group.blocks - 1)
    )
    return nn.Sequential(first, *rest)


def _convolution(
    in_channels: int, channels: int, *, kernel: int, stride: int = 1, groups: int = 1
) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(
        in_channels, channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )
    return convolution, nn.BatchNorm2d(channels), nn.ReLU()


def mobilenet_v2(n_classes: int, in_channels: int, width: int | None) -> nn.Module:
    """MobileNetV2 whose first group has `width` channels: 8, the multiplier 0.5, where none is given.

    The head has 1280 channels also in narrower networks, and more only in those wider than the paper's
    (its section 4).
    """
    stem, *channels, head = scaled((_STEM, *_CHANNELS, _HEAD), first=_CHANNELS[0], width=width or _WIDTH)
    return MobileNetV2(n_classes, in_channels, stem=stem, channels=tuple(channels), head=max(head, _HEAD))
