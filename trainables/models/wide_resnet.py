"""Wide residual networks without dropout (Zagoruyko and Komodakis, BMVC 2016).

Parameter names are those of the checkpoints of Contrastive Representation Distillation (Tian et al., ICLR
2020).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from torch import Tensor, nn

from trainables.models.features.points import stages
from trainables.models.widths import scaled

_STEM: Final = 16

# B = samples in the batch, C = channels or classes, H, W = height and width


class WideBlock(nn.Module):
    """Batch norm and ReLU before each 3x3 convolution; a 1x1 shortcut where the channels change."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.convShortcut: nn.Module | None = None
        # The first stage of wrn_d_1 keeps its channels and its size; no other stage keeps its size.
        if in_channels != channels or stride != 1:
            self.convShortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Feature maps, halved in height and width by a stride of 2."""
        activated = self.relu1(self.bn1(x_BCHW))
        # The shortcut starts after the activation where it is a convolution, before it where it is not.
        shortcut = x_BCHW if self.convShortcut is None else self.convShortcut(activated)
        out: Tensor = self.conv2(self.relu2(self.bn2(self.conv1(activated))))
        return out + shortcut


class WideStage(nn.Module):
    """Blocks of one width; the first may halve height and width."""

    def __init__(self, in_channels: int, channels: int, blocks: int, stride: int) -> None:
        super().__init__()
        rest = (WideBlock(channels, channels, 1) for _ in range(blocks - 1))
        self.layer = nn.Sequential(WideBlock(in_channels, channels, stride), *rest)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Feature maps."""
        out: Tensor = self.layer(x_BCHW)
        return out


class WideResNet(nn.Module):
    """A 3x3 stem, three stages, batch norm, global average pooling and a linear layer."""

    # As the literature has it: a block ends without an activation, which comes first in the next.
    STAGES = stages(
        {
            "stem": "conv1",
            **dict.fromkeys(("stage1", "stage1.pre"), "block1"),
            **dict.fromkeys(("stage2", "stage2.pre"), "block2"),
            **dict.fromkeys(("stage3", "stage3.pre"), "block3"),
        }
    )

    def __init__(
        self, n_classes: int, in_channels: int, channels: tuple[int, ...], blocks_per_stage: int
    ) -> None:
        super().__init__()
        stem, first, second, third = channels
        self.conv1 = nn.Conv2d(in_channels, stem, 3, padding=1, bias=False)
        self.block1 = WideStage(stem, first, blocks_per_stage, stride=1)
        self.block2 = WideStage(first, second, blocks_per_stage, stride=2)
        self.block3 = WideStage(second, third, blocks_per_stage, stride=2)
        self.bn1 = nn.BatchNorm2d(third)
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(third, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits BxC."""
        x = self.block3(self.block2(self.block1(self.conv1(images_BCHW))))
        x = self.relu(self.bn1(x))
        logits: Tensor = self.fc(self.flatten(self.avgpool(x)))
        return logits


def wide_resnet(depth: int, factor: int) -> Callable[[int, int, int | None], nn.Module]:
    """The builder of wrn_`depth`_`factor`; `depth` is 6n + 4, for n blocks per stage.

    With a width, the first stage has that many channels and the stem 1/`factor` of it.
    """
    blocks = (depth - 4) // 6
    channels = (_STEM, _STEM * factor, 2 * _STEM * factor, 4 * _STEM * factor)

    def build(n_classes: int, in_channels: int, width: int | None) -> nn.Module:
        return WideResNet(n_classes, in_channels, scaled(channels, first=channels[1], width=width), blocks)

    return build
