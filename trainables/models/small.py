"""Two tiny networks: for digits, for demonstrations, and as the smallest students."""

from __future__ import annotations

from typing import Final

from torch import nn

from trainables.models.features.points import stages

_MLP_SIDE: Final = 8
_MLP_UNITS: Final = 128
_CONVNET_CHANNELS: Final = 32


class Mlp(nn.Sequential):
    """Layers without feature maps."""

    STAGES = stages({})


class ConvNet(nn.Sequential):
    """Layers of which each third is an activation, up to the pooling."""

    STAGES = stages({"stem": "2", "stage1": "6", "stage1.pre": "5", "stage2": "10", "stage2.pre": "9"})


def mlp(n_classes: int, in_channels: int, width: int | None) -> nn.Module:
    """Pixels averaged to 8x8, one hidden layer of `width` units (128), and the logits."""
    units = width or _MLP_UNITS
    return Mlp(
        nn.AdaptiveAvgPool2d(_MLP_SIDE),
        nn.Flatten(),
        nn.Linear(in_channels * _MLP_SIDE**2, units),
        nn.ReLU(),
        nn.Linear(units, n_classes),
    )


def convnet(n_classes: int, in_channels: int, width: int | None) -> nn.Module:
    """Three 3x3 convolutions with batch norm, of `width` (32), 2 and 4 times as many channels."""
    first = width or _CONVNET_CHANNELS
    return ConvNet(
        *_convolution(in_channels, first),
        nn.MaxPool2d(2),
        *_convolution(first, 2 * first),
        nn.MaxPool2d(2),
        *_convolution(2 * first, 4 * first),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * first, n_classes),
    )


def _convolution(in_channels: int, channels: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )
