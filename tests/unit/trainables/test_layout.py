from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from trainables.config import ModelConfig, ModelName
from trainables.layout import memory_format
from trainables.models import build_model

# Trains under malloc's own checks: an overrun that is harmless by luck elsewhere aborts here.
COURSE = """
import sys
import torch
from tests.unit.trainables.course_lab import SHORT, separable_data, small_bench
from trainables.config import CeConfig, ModelConfig
from trainables.loop import Course, train
from trainables.models import build_model

torch.set_num_threads(1)
bench = small_bench(separable_data(200))
training = SHORT.with_overrides(epochs=2)
for width in (1, 2, 3, 4):
    model = build_model(ModelConfig(name="resnet8", width=width), n_classes=3, in_channels=1)
    train(Course(model, CeConfig(), training, 0), bench, on_epoch=lambda *_: None)
    print("trained", width, flush=True)
"""


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


def test_the_narrowest_resnets_train_without_writing_beyond_their_buffers() -> None:
    checks = {"MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "17", "OMP_NUM_THREADS": "1"}
    child = subprocess.run(
        [sys.executable, "-c", COURSE], env={**os.environ, **checks}, capture_output=True, text=True
    )
    assert child.returncode == 0, child.stderr[-2000:]
    assert child.stdout.split("\n")[:-1] == [f"trained {width}" for width in (1, 2, 3, 4)]
