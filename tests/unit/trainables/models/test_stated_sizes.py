"""The size at which a teacher's images were shown to it, in the words of each library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainables.config import ModelConfig, ModelName
from trainables.models.foreign.stated_sizes import StatedSize, stated_size


@pytest.mark.parametrize(
    ("name", "variant", "checkpoint", "stated"),
    [
        ("timm", "mobilenetv4_conv_small", "published", StatedSize(224, 256)),
        ("timm", "test_vit", "published:r160_in1k", StatedSize(160, 168)),
        ("torchvision", "resnet18", "published", StatedSize(224, 256)),
        ("torchvision", "resnet50", "published:IMAGENET1K_V2", StatedSize(224, 232)),
        ("torchvision", "resnet18", "mine.pth", None),
        ("torchvision", "resnet18", None, None),
        ("torchvision", "resnet19", "published", None),
        ("timm", "resnet18", "published:nobody", None),
    ],
)
def test_libraries_say_it_of_what_they_publish(
    name: str, variant: str, checkpoint: str | None, stated: StatedSize | None
) -> None:
    assert stated_size(ModelConfig(name=ModelName(name), variant=variant), checkpoint) == stated


@pytest.mark.parametrize(
    ("said", "stated"),
    [
        ({"size": {"height": 32, "width": 32}}, StatedSize(32, None)),
        ({"size": 48}, StatedSize(48, None)),
        (
            {"size": {"shortest_edge": 36}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}},
            StatedSize(32, 36),
        ),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, StatedSize(224, 256)),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, StatedSize(384, None)),
        ({"size": {"shortest_edge": 64}, "do_center_crop": False}, StatedSize(64, 64)),
        ({"size": {"height": 32, "width": 48}}, None),
        ({"size": {"height": 32, "width": 32}, "do_resize": False}, None),
        ({"size": {"shortest_edge": "large"}}, None),
        ({}, None),
        (["size"], None),
    ],
)
def test_a_folder_of_transformers_says_it_in_its_preprocessor(
    tmp_path: Path, said: Any, stated: StatedSize | None
) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    model = ModelConfig(name=ModelName.TRANSFORMERS, variant=str(tmp_path))
    assert stated_size(model, "published") == stated
    assert stated_size(model, str(tmp_path / "model.safetensors")) == stated
    assert stated_size(model, str(tmp_path / "other.safetensors")) is None
