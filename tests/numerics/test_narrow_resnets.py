"""PyTorch 2.13 writes beyond its buffers in one case on CPU, which `trainables.layout` avoids."""

from __future__ import annotations

import os
import subprocess
import sys

# Trains under malloc's own checks: an overrun that is harmless by luck elsewhere aborts here.
COURSE = """
import sys
import torch
from tests.unit.trainables.training.small_courses import SHORT, separable_data, small_workbench
from trainables.config import CeConfig, ModelConfig
from trainables.training.course import Course
from trainables.training.loop import train
from trainables.models import build_model

torch.set_num_threads(1)
workbench = small_workbench(separable_data(200))
training = SHORT.with_overrides(epochs=2)
for width in (1, 2, 3, 4):
    model = build_model(ModelConfig(name="resnet8", width=width), n_classes=3, in_channels=1)
    train(Course(model, CeConfig(), training, 0), workbench, on_epoch=lambda *_: None)
    print("trained", width, flush=True)
"""


def test_the_narrowest_resnets_train_without_writing_beyond_their_buffers() -> None:
    checks = {"MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "17", "OMP_NUM_THREADS": "1"}
    child = subprocess.run(
        [sys.executable, "-c", COURSE], env={**os.environ, **checks}, capture_output=True, text=True
    )
    assert child.returncode == 0, child.stderr[-2000:]
    assert child.stdout.split("\n")[:-1] == [f"trained {width}" for width in (1, 2, 3, 4)]
