from __future__ import annotations

import pytest
import torch
from torch import nn

from trainables.config import ModelConfig, ModelName
from trainables.models import build_model
from trainables.tensors import memory_format


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(4, 8, 1, stride=2), torch.contiguous_format),
        (nn.Conv2d(15, 8, 1, stride=(1, 2)), torch.contiguous_format),
        (nn.Conv2d(16, 8, 1, stride=2), torch.channels_last),
        (nn.Conv2d(4, 8, 1), torch.channels_last),
        (nn.Conv2d(4, 8, 3, stride=2), torch.channels_last),
        (nn.Linear(4, 8), torch.channels_last),
    ],
)
def test_only_a_narrow_strided_1x1_convolution_keeps_a_network_from_channels_last(
    layer: nn.Module, expected: torch.memory_format
) -> None:
    assert memory_format(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(layer))) is expected


@pytest.mark.parametrize(("width", "expected"), [(4, torch.contiguous_format), (16, torch.channels_last)])
def test_the_shortcuts_of_a_narrow_resnet_count(width: int, expected: torch.memory_format) -> None:
    model = build_model(ModelConfig(name=ModelName.RESNET8, width=width), n_classes=3, in_channels=1)
    assert memory_format(model) is expected
