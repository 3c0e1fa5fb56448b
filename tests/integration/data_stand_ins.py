"""Stand-ins in the on-disk formats of CIFAR-100 and of an image folder, and recipes of a few steps."""

from __future__ import annotations

import contextlib
import hashlib
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torchvision.datasets import CIFAR100

from tests.unit.trainables.cache.tiny_caches import TinyCache
from trainables.config import ModelConfig, ObjectiveBase, Precision, TrainingConfig, ViewsConfig
from trainables.data import TrainingData
from trainables.data.splits import split_facts
from trainables.models import build_model
from trainables.training.course import Course, TrainingResult
from trainables.training.loop import train
from trainables.training.workbench import Workbench

CPU = torch.device("cpu")
STEPS = 2
BATCH = 8
EPOCHS = 2
SEED = 7


def pixels(seed: int, *shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@contextlib.contextmanager
def cifar100_stand_in(root: Path) -> Iterator[Path]:
    """Three pickles, as in the archive; torchvision's checksums are set to theirs, and still enforced."""
    folder = root / CIFAR100.base_folder
    folder.mkdir(parents=True)
    checksums = {}
    for name, n_images in (("train", 60), ("test", 20)):
        content = {
            "data": pixels(n_images, n_images, 3072),
            "fine_labels": [index % 100 for index in range(n_images)],
            "coarse_labels": [0] * n_images,
        }
        checksums[name] = _write(folder / name, content)
    checksums["meta"] = _write(folder / "meta", {"fine_label_names": [f"class {i}" for i in range(100)]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CIFAR100, "train_list", [["train", checksums["train"]]])
        patch.setattr(CIFAR100, "test_list", [["test", checksums["test"]]])
        patch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": checksums["meta"]})
        yield root


def _write(path: Path, content: object) -> str:
    path.write_bytes(pickle.dumps(content))
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def image_folder_stand_in(root: Path, *, n_classes: int = 3, per_class: int = 12) -> Path:
    """train/<class>/<image> and test/<class>/<image>, JPEG files of several sizes, as ImageNet has them."""
    for part, count in (("train", per_class), ("test", 2)):
        for label in range(n_classes):
            folder = root / part / f"n{label:08d}"
            folder.mkdir(parents=True)
            for index in range(count):
                image = Image.fromarray(pixels(100 * label + index, 50 + 3 * index, 70, 3))
                image.save(folder / f"{index}.JPEG")
    return root


def shortened(training: TrainingConfig) -> TrainingConfig:
    """The recipe in two epochs of two small batches, with a tenth of the rate after the first."""
    return training.with_overrides(
        epochs=EPOCHS, batch_size=BATCH, milestones=[1], checkpoint_every=1, eval_batch_size=32
    )


def few_views(views: ViewsConfig) -> ViewsConfig:
    """The recipes with a view for each epoch."""
    banks = {"weak": views.weak, "strong": views.strong}
    return views.with_overrides(**{name: bank.with_overrides(views=EPOCHS) for name, bank in banks.items()})


def built(model: ModelConfig, data: TrainingData) -> nn.Module:
    torch.manual_seed(0)
    return build_model(model, n_classes=len(data.classes), in_channels=int(data.train.images.shape[1]))


class Trained:
    """A course of a shortened recipe, its figures of each epoch and the rate of each step."""

    def __init__(
        self,
        model: nn.Module,
        objective: ObjectiveBase,
        training: TrainingConfig,
        workbench: Workbench,
    ) -> None:
        self.model = model
        self.epochs: list[dict[str, float]] = []
        self.rates: list[float] = []

        def note(optimizer: Optimizer, *_: object) -> None:
            self.rates.append(optimizer.param_groups[0]["lr"])

        hook = register_optimizer_step_post_hook(note)
        try:
            course = Course(model, objective, shortened(training), SEED)
            self.outcome: TrainingResult = train(
                course, workbench, on_epoch=lambda _, metrics: self.epochs.append(metrics)
            )
        finally:
            hook.remove()


def cached(folder: Path, data: TrainingData, teacher: nn.Module, views: ViewsConfig) -> Workbench:
    """A workbench that serves the teacher's answers from a cache, which is built here.

    It keeps fp32: after so few steps the running statistics of a network of 110 layers are far off, and its
    logits beyond what fp16 can say.
    """
    precision = Precision.FP32
    tiny = TinyCache(folder, data, teacher, split_facts(data), views=views, seed=SEED, precision=precision)
    tiny.build(("weak",))
    return Workbench(data, views, view_seed=SEED, device=CPU, cache=tiny.open())
