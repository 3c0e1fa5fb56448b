"""Every deep family for small images leaves the house in all three formats."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from trainables.config import ModelConfig, ModelName
from trainables.export.formats import FILES, export_student
from trainables.models import build_model

WIDTHS = {
    ModelName.RESNET50: 8,
    ModelName.MOBILENETV2: 4,
    ModelName.SHUFFLENETV1: 24,
    ModelName.SHUFFLENETV2: 24,
}
CARD = {
    "classes": [str(number) for number in range(10)],
    "normalisation": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
    "metrics": {"selection/accuracy": 0.5},
    "lineage": {
        "teacher": "3f2a",
        "cache": None,
        "trial_id": "t1",
        "objective": "kd",
        "hyper_parameters": {},
        "seed": 0,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "width"), WIDTHS.items())
def test_a_deep_student_is_exported_as_it_is(name: ModelName, width: int, tmp_path: Path) -> None:
    def build() -> nn.Module:
        return build_model(ModelConfig(name=name, width=width), n_classes=10, in_channels=3)

    torch.manual_seed(0)
    images = torch.rand(9, 3, 32, 32)
    student = build().to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    with torch.no_grad():
        student(images)  # statistics of these images
    summary = export_student(
        student,
        rebuild=build,
        folder=tmp_path / "champion",
        input_shape=(3, 32, 32),
        sample_images=images,
        card=CARD,
    )
    assert set(summary.files) >= set(FILES)
    assert max(file.max_abs_difference for file in summary.files.values()) < 1e-3
