"""A tiny student, exported once, and pictures made on the fly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from trainables.config import ModelConfig, ModelName
from trainables.export.formats import ExportSummary, export_student
from trainables.export.model_card import CardFacts
from trainables.export.stated import STATED, stated_text
from trainables.models import build_model
from trainables.models.weights import save_weights
from trainables.views.normalise import normalise

CLASSES = ("cat", "dog", "owl")
SIDE = 12
NETWORK = ModelConfig(name=ModelName.CONVNET, width=4)
NORMALISATION = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}


def card(**changes: Any) -> dict[str, Any]:
    """The facts of the tiny student."""
    facts = {
        "classes": list(CLASSES),
        "normalisation": NORMALISATION,
        "metrics": {"test_accuracy": 0.5},
        "lineage": {
            "cache": None,
            "trial_id": "kd-1-seed0",
            "objective": "kd",
            "hyper_parameters": {},
            "seed": 7,
        },
        "architecture": {"network": NETWORK.plain(), "n_classes": 3, "in_channels": 3, "parameters": 1},
        "preparation": {"channels": "RGB", "resizing": {"shorter_side": 14, "centre_crop": SIDE}},
    }
    return facts | changes


def network(in_channels: int = 3) -> nn.Module:
    """A fresh network of the student's architecture."""
    return build_model(NETWORK, n_classes=len(CLASSES), in_channels=in_channels)


def pixels(count: int, *, seed: int = 0, channels: int = 3) -> Tensor:
    """uint8 images of the input's size: of smooth shades, as photographs have."""
    coarse = torch.rand(count, channels, 3, 3, generator=torch.Generator().manual_seed(seed))
    return (nn.functional.interpolate(coarse, SIDE, mode="bilinear") * 255).to(torch.uint8)


def photograph(height: int, width: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """uint8 HxWx3, with edges and shades."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def trained_network() -> nn.Module:
    """A network with statistics of its own, as training leaves it."""
    torch.manual_seed(0)
    model = network().train()
    with torch.no_grad():
        for seed in range(20):
            model(normalise(pixels(64, seed=seed), NORMALISATION["mean"], NORMALISATION["std"]))
    return model.eval()


def export_tiny(folder: Path, model: nn.Module, **changes: Any) -> ExportSummary:
    """The tiny student in all formats."""
    images = normalise(pixels(40, seed=9), NORMALISATION["mean"], NORMALISATION["std"])
    return export_student(
        model,
        rebuild=network,
        folder=folder,
        input_shape=(3, SIDE, SIDE),
        sample_images=images,
        card=card(**changes),
    )


def weights_alone(path: Path, model: nn.Module, **changes: Any) -> Path:
    """The tiny student as safetensors that describe themselves, without the time that graphs take."""
    facts = CardFacts.from_plain(card(**changes))
    save_weights(model, path, {STATED: stated_text(facts, (3, SIDE, SIDE))})
    return path


def write_photographs(folder: Path, names: Sequence[str], *, seed: int = 0) -> list[Path]:
    """Photographs of several sizes, as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, name in enumerate(names):
        paths.append(folder / name)
        shades = photograph(20 + 3 * number, 31 - number, seed=seed + number)
        Image.fromarray(shades).save(paths[-1])
    return paths
