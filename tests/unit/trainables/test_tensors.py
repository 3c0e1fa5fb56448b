from __future__ import annotations

import pytest
import torch
from torch import nn

from trainables.config import ModelConfig, ModelName
from trainables.models import build_model
from trainables.tensors import memory_format, threads_beside_slots


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


def test_a_driver_beside_slots_takes_no_more_threads_than_one_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with threads_beside_slots(2):
            assert torch.get_num_threads() == 2
        with threads_beside_slots(8):
            assert torch.get_num_threads() == 3
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        with threads_beside_slots(1):
            assert torch.get_num_threads() == 3
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
