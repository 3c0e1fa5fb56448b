"""How far a cache in half precision carries a student away from one that heard the teacher itself."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from tests.benchmarks.figures import Figure
from tests.benchmarks.steps import CPU, VIEW_SEED, cache_of
from tests.benchmarks.surroundings import surroundings
from trainables.cache.node.reader import CacheReader
from trainables.config import (
    BankConfig,
    CeConfig,
    CropFlipStep,
    DataConfig,
    DataName,
    KdConfig,
    ModelConfig,
    Precision,
    TrainingConfig,
    ViewsConfig,
)
from trainables.data import TrainingData, load_training
from trainables.models import build_model
from trainables.training.course import Course
from trainables.training.loop import train
from trainables.training.workbench import Workbench

EPOCHS: Final = 20
CROP: Final = CropFlipStep(op="crop_flip", padding=1, flip_probability=0)
VIEWS: Final = ViewsConfig(weak=BankConfig(recipe=(CROP,), views=EPOCHS))
TEACHER: Final = ModelConfig.from_plain({"name": "resnet8", "width": 16})
STUDENT: Final = ModelConfig.from_plain({"name": "resnet8", "width": 4})
RECIPE: Final = TrainingConfig(epochs=EPOCHS, batch_size=64, lr=0.05)


def cached_fp16_weight_drift() -> Figure:
    """Distance between the weights from an fp16 and an fp32 cache, over the way that training went."""
    torch.set_num_threads(1)
    data = load_training(DataConfig(name=DataName.DIGITS))
    teacher = _network(TEACHER, data)
    _train(teacher, data, None, CeConfig())
    ends: dict[Precision, tuple[Tensor, float]] = {}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        for precision in (Precision.FP32, Precision.FP16):
            place = Path(folder) / precision.value
            cache = cache_of(place, data, teacher, VIEWS, precision=precision)
            student = _network(STUDENT, data)
            accuracy = _train(student, data, cache, KdConfig())
            ends[precision] = (_flat(student), accuracy)
    (exact, accuracy), (half, half_accuracy) = ends[Precision.FP32], ends[Precision.FP16]
    drift = float((half - exact).norm() / (exact - _flat(_network(STUDENT, data))).norm())
    how = (
        f"L2 distance of the final weights from caches in fp16 and in fp32, over that from the first weights "
        f"to the latter; KD, {EPOCHS} epochs of digits on as many views, {STUDENT.name} of width "
        f"{STUDENT.width}, 1 thread; selection accuracies {100 * half_accuracy:.2f} % and "
        f"{100 * accuracy:.2f} %; an fp32 cache and the teacher online give the same weights bit for bit; "
        f"{surroundings('torch')}"
    )
    return Figure(drift, "x", how)


def _network(config: ModelConfig, data: TrainingData) -> nn.Module:
    torch.manual_seed(0)
    return build_model(config, n_classes=len(data.classes), in_channels=1)


def _train(
    model: nn.Module, data: TrainingData, cache: CacheReader | None, objective: CeConfig | KdConfig
) -> float:
    """Train the model; its selection accuracy in the end, whose weights it keeps."""
    last: dict[str, float] = {}
    workbench = Workbench(data, VIEWS, view_seed=VIEW_SEED, device=CPU, cache=cache)
    train(Course(model, objective, RECIPE, 0), workbench, on_epoch=lambda _, metrics: last.update(metrics))
    return last["selection/accuracy"]


def _flat(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
