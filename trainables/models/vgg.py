"""VGG for small images (Simonyan and Zisserman, 2015) with batch norm and one linear layer.

Layout and parameter names are those of the checkpoints of Contrastive Representation Distillation (Tian et
al., ICLR 2020). Global average pooling at the end takes any image of 8x8 pixels or more.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Final

from torch import Tensor, nn

from trainables.models.features.points import Point, stages
from trainables.models.widths import scaled

_CHANNELS: Final = (64, 128, 256, 512, 512)
_FOURTH_POOL_FROM: Final = 64

# B = samples in the batch, C = channels or classes, H, W = height and width


class Vgg(nn.Module):
    """Five blocks of 3x3 convolutions with max pooling between them.

    As published, the pooling after the fourth block is for images of 64 pixels or more alone.
    """

    STAGES = stages(
        {
            "stem": Point("relu", call=0),
            **{f"stage{number}": Point("relu", call=number) for number in (1, 2, 3, 4)},
            **{f"stage{number}.pre": f"block{number}" for number in (1, 2, 3, 4)},
        }
    )

    def __init__(
        self, n_classes: int, in_channels: int, channels: tuple[int, ...], convolutions_per_block: int
    ) -> None:
        super().__init__()
        blocks = [
            _block(before, after, convolutions_per_block)
            for before, after in pairwise((in_channels, *channels))
        ]
        self.block0, self.block1, self.block2, self.block3, self.block4 = blocks
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(channels[-1], n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits BxC."""
        x = self.maxpool(self.relu(self.block0(images_BCHW)))
        x = self.maxpool(self.relu(self.block1(x)))
        x = self.maxpool(self.relu(self.block2(x)))
        x = self.relu(self.block3(x))
        if images_BCHW.shape[-1] >= _FOURTH_POOL_FROM:
            x = self.maxpool(x)
        x = self.relu(self.block4(x))
        logits: Tensor = self.classifier(self.flatten(self.avgpool(x)))
        return logits


def _block(in_channels: int, channels: int, convolutions: int) -> nn.Sequential:
    """Convolutions with batch norm, and ReLU between them; the network applies the last ReLU."""
    layers: list[nn.Module] = []
    for index in range(convolutions):
        if index > 0:
            layers.append(nn.ReLU())
        layers.append(nn.Conv2d(in_channels if index == 0 else channels, channels, 3, padding=1))
        layers.append(nn.BatchNorm2d(channels))
    return nn.Sequential(*layers)


def vgg(convolutions_per_block: int) -> Callable[[int, int, int | None], nn.Module]:
    """The builder of vgg8 (one convolution per block) or vgg13 (two)."""

    def build(n_classes: int, in_channels: int, width: int | None) -> nn.Module:
        channels = scaled(_CHANNELS, first=_CHANNELS[0], width=width)
        return Vgg(n_classes, in_channels, channels, convolutions_per_block)

    return build
