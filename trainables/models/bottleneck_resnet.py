"""ResNet50 for small images: bottleneck blocks (He et al., 2016, section 4.1) behind a 3x3 stem, no pooling.

Layout and parameter names are those of the checkpoints of Contrastive Representation Distillation (Tian et
al., ICLR 2020): a block's stride is that of its 3x3 convolution. For the network of ImageNet, with a 7x7
stem, take torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from torch import Tensor, nn

from trainables.models.features.points import activated_layers, stages
from trainables.models.widths import scaled

_CHANNELS: Final = (64, 128, 256, 512)
_EXPANSION: Final = 4

# B = samples in the batch, C = channels or classes, H, W = height and width


class Bottleneck(nn.Module):
    """relu(x + branch): 1x1 convolution to `channels`, 3x3 one, 1x1 one to four times as many."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = _EXPANSION * channels
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Feature maps, halved in height and width by a stride of 2."""
        shortcut = x_BCHW if self.shortcut is None else self.shortcut(x_BCHW)
        out: Tensor = self.relu(self.bn1(self.conv1(x_BCHW)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        activated: Tensor = self.relu(out + shortcut)
        return activated


class BottleneckResNet(nn.Module):
    """A 3x3 stem, four stages of bottleneck blocks, global average pooling and a linear layer."""

    STAGES = stages({"stem": "relu", **activated_layers(4)})

    def __init__(
        self, n_classes: int, in_channels: int, channels: tuple[int, ...], blocks: Sequence[int]
    ) -> None:
        super().__init__()
        first, second, third, fourth = channels
        self.conv1 = nn.Conv2d(in_channels, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.relu = nn.ReLU()
        self.layer1 = _stage(first, first, blocks[0], stride=1)
        self.layer2 = _stage(_EXPANSION * first, second, blocks[1], stride=2)
        self.layer3 = _stage(_EXPANSION * second, third, blocks[2], stride=2)
        self.layer4 = _stage(_EXPANSION * third, fourth, blocks[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(_EXPANSION * fourth, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits BxC."""
        x = self.relu(self.bn1(self.conv1(images_BCHW)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.linear(self.flatten(self.avgpool(x)))
        return logits


def _stage(in_channels: int, channels: int, blocks: int, *, stride: int) -> nn.Sequential:
    rest = (Bottleneck(_EXPANSION * channels, channels, 1) for _ in range(blocks - 1))
    return nn.Sequential(Bottleneck(in_channels, channels, stride), *rest)


def bottleneck_resnet(*blocks: int) -> Callable[[int, int, int | None], nn.Module]:
    """The builder of the network with so many blocks in its four stages: 3, 4, 6 and 3 give ResNet50.

    A width is that of the stem and of the first stage's 3x3 convolutions.
    """

    def build(n_classes: int, in_channels: int, width: int | None) -> nn.Module:
        channels = scaled(_CHANNELS, first=_CHANNELS[0], width=width)
        return BottleneckResNet(n_classes, in_channels, channels, blocks)

    return build
