"""Every deep family for small images leaves the house in all three formats."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn

from trainables.config import ModelConfig, ModelName
from trainables.export.formats import export_student
from trainables.export.stated import FILES
from trainables.models import build_model
from trainables.models.distillation_token import distillation_heads

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


def test_a_student_with_a_distillation_token_is_exported_as_the_mean_of_both_heads(tmp_path: Path) -> None:
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
    config = ModelConfig(
        name=ModelName.TIMM, variant="deit_tiny_distilled_patch16_224", arguments=dict(sizes)
    )

    def build() -> nn.Module:
        return build_model(config, n_classes=10, in_channels=3)

    torch.manual_seed(0)
    student, images = build(), torch.rand(9, 3, 32, 32)
    summary = export_student(
        student,
        rebuild=build,
        folder=tmp_path / "champion",
        input_shape=(3, 32, 32),
        sample_images=images,
        card=CARD,
    )
    heads = distillation_heads(student)
    assert heads is not None
    given: list[torch.Tensor] = []
    for path in heads:
        student.get_submodule(path).register_forward_hook(lambda _, _inputs, output: given.append(output))
    with torch.no_grad():
        student.eval()(images)
    mean_BC = (given[0] + given[1]) / 2
    session = onnxruntime.InferenceSession(summary.path("onnx"), providers=["CPUExecutionProvider"])
    (found_BC,) = session.run(None, {"images": images.numpy()})  # of one output
    torch.testing.assert_close(torch.from_numpy(found_BC), mean_BC, rtol=1e-3, atol=1e-4)
    exported = torch.export.load(summary.path("torch_export")).module()
    torch.testing.assert_close(exported(images), mean_BC, rtol=1e-3, atol=1e-4)
    assert (given[0] - given[1]).abs().max() > 0.01
