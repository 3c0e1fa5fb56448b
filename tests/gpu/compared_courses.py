"""Courses that tests run on a GPU and on the CPU, and what of their ends is compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from tests.unit.trainables.training.small_courses import separable_data, small_workbench, untimed, weights_of
from trainables.config import ModelConfig, ModelName
from trainables.models import build_model
from trainables.training.course import Course
from trainables.training.loop import train
from trainables.training.progress.checkpoints import CheckpointFolder
from trainables.training.workbench import Workbench

# B = images, C = classes


class Lost(Exception):
    """A worker that dies."""


@dataclass(frozen=True)
class Ended:
    """How a course ended."""

    told: tuple[dict[str, float], ...]
    """Metrics of each epoch, without times."""
    weights: dict[str, Tensor]
    logits_BC: Tensor
    """Of the selection split, on the CPU."""

    def means(self) -> list[dict[str, float]]:
        """The means over each epoch that change little when sums are rounded in another way.

        An accuracy jumps by a whole sample.
        """
        return [
            {name: value for name, value in metrics.items() if name.startswith("train/")}
            for metrics in self.told
        ]


@contextmanager
def exact_sums() -> Iterator[None]:
    """Sums of fp32 in an order that repeats: without TF32, and with deterministic kernels.

    An operation that has no deterministic kernel is warned about, and the test shows whether it matters.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def noise(split: str) -> TensorDataset:
    """Some grey images, for a configuration that names where data comes from."""
    generator = torch.Generator().manual_seed({"train": 0, "test": 1}[split])
    images = torch.randint(0, 256, (60, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return TensorDataset(images, torch.arange(60) % 3)


def resnet(seed: int = 0) -> nn.Module:
    """A real student without a random layer: devices draw dropout masks from generators of their own."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_model(ModelConfig(name=ModelName.RESNET8, width=16), n_classes=3, in_channels=1)


def run(
    course: Course, bench: Workbench, *, files: CheckpointFolder | None = None, dies_in: int | None = None
) -> Ended:
    """Train to the end; `dies_in` is the epoch in which the worker is lost instead.

    Raises:
        Lost: it was.
    """
    told: list[dict[str, float]] = []

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        if epoch == dies_in:
            raise Lost
        told.append(untimed(metrics))

    train(course, bench, on_epoch=on_epoch, files=files)
    return Ended(tuple(told), weights_of(course.model), logits_of(course.model))


def bench_on(device: torch.device, **options: Any) -> Workbench:
    return small_workbench(options.pop("data", None) or separable_data(), device=device, **options)


def logits_of(model: nn.Module) -> Tensor:
    """What the model says about the selection split, on the CPU; the model stays where and as it was."""
    images_NCHW = separable_data().selection.images[:].float() / 255
    training, device = model.training, next(model.parameters()).device
    with torch.no_grad():
        logits_BC: Tensor = model.eval()(images_NCHW.to(device, memory_format=torch.channels_last))
    model.train(training)
    return logits_BC.cpu()


def assert_close(one: Ended, other: Ended, *, logits: float, means: float) -> None:
    """`logits` is the largest difference of two logits, `means` that of two means, as a fraction."""
    found, expected = one.means(), other.means()
    assert len(found) == len(expected) > 0
    for epoch, (values, wanted) in enumerate(zip(found, expected, strict=True), 1):
        assert values == _near(wanted, means), f"epoch {epoch}"
    torch.testing.assert_close(one.logits_BC, other.logits_BC, rtol=0, atol=logits)


def _near(values: Mapping[str, float], fraction: float) -> Any:
    return pytest.approx(values, rel=fraction, abs=1e-5)


def assert_same(one: Ended, other: Ended) -> None:
    """Equal to the bit."""
    assert one.told == other.told
    assert one.weights.keys() == other.weights.keys()
    different = [name for name in one.weights if not torch.equal(one.weights[name], other.weights[name])]
    assert different == []
