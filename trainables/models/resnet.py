"""Residual networks for small images (He et al., 2016, section 4.2), as distillation's literature has them.

Layout and parameter names are those of the checkpoints of Contrastive Representation Distillation (Tian et
al., ICLR 2020): a shortcut that changes shape is a 1x1 convolution with batch norm, and resnet8x4 and
resnet32x4 are four times as wide after the stem.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from torch import Tensor, nn

from trainables.models.features.points import activated_layers, stages
from trainables.models.widths import scaled

_PLAIN: Final = (16, 16, 32, 64)
_TIMES_FOUR: Final = (32, 64, 128, 256)

# B = samples in the batch, C = channels or classes, H, W = height and width


class BasicBlock(nn.Module):
    """relu(x + bn(conv(relu(bn(conv(x)))))), with 3x3 convolutions."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Feature maps, halved in height and width by a stride of 2."""
        shortcut = x_BCHW if self.downsample is None else self.downsample(x_BCHW)
        out: Tensor = self.relu(self.bn1(self.conv1(x_BCHW)))
        out = self.bn2(self.conv2(out))
        activated: Tensor = self.relu(out + shortcut)
        return activated


class ResNet(nn.Module):
    """A 3x3 stem, three stages of basic blocks, global average pooling and a linear layer."""

    STAGES = stages({"stem": "relu", **activated_layers(3)})

    def __init__(
        self, n_classes: int, in_channels: int, channels: tuple[int, ...], blocks_per_stage: int
    ) -> None:
        super().__init__()
        stem, first, second, third = channels
        self.conv1 = nn.Conv2d(in_channels, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU()
        self.layer1 = _stage(stem, first, blocks_per_stage, stride=1)
        self.layer2 = _stage(first, second, blocks_per_stage, stride=2)
        self.layer3 = _stage(second, third, blocks_per_stage, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(third, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits BxC."""
        x = self.relu(self.bn1(self.conv1(images_BCHW)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(self.flatten(self.avgpool(x)))
        return logits


def _stage(in_channels: int, channels: int, blocks: int, *, stride: int) -> nn.Sequential:
    rest = (BasicBlock(channels, channels, 1) for _ in range(blocks - 1))
    return nn.Sequential(BasicBlock(in_channels, channels, stride), *rest)


def resnet(depth: int) -> Callable[[int, int, int | None], nn.Module]:
    """The builder of resnet`depth`; `depth` is 6n + 2, for n blocks per stage."""
    return _builder(depth, _PLAIN)


def resnet_x4(depth: int) -> Callable[[int, int, int | None], nn.Module]:
    """The builder of resnet`depth`x4."""
    return _builder(depth, _TIMES_FOUR)


def _builder(depth: int, channels: tuple[int, ...]) -> Callable[[int, int, int | None], nn.Module]:
    blocks = (depth - 2) // 6

    def build(n_classes: int, in_channels: int, width: int | None) -> nn.Module:
        return ResNet(n_classes, in_channels, scaled(channels, first=channels[1], width=width), blocks)

    return build
