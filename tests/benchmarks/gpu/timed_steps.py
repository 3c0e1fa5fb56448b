"""What benchmarks on a GPU share: the device, sizes of CIFAR-100's pairs, and steps timed as they overlap.

A GPU computes while the host goes ahead, so a step has no time of its own. A window of many steps is timed
instead: the GPU is waited for at its two ends alone, as in a training that asks for nothing meanwhile.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

import torch
from torch import nn

from tests.benchmarks.steps import VIEW_SEED, interleaved, never
from tests.benchmarks.surroundings import surroundings
from tests.gpu.tried import tried_device
from trainables.config import (
    BankConfig,
    CropFlipStep,
    ModelConfig,
    ModelName,
    RandAugmentStep,
    TrainingConfig,
    ViewsConfig,
    digest_of,
)
from trainables.data import ImageSplit, TrainingData
from trainables.evaluation.profiling import device_name
from trainables.models import build_model
from trainables.training.course import Course
from trainables.training.loop import train
from trainables.training.workbench import Workbench, render_budget

STUDENT: Final = ModelConfig(name=ModelName.RESNET8X4)
TEACHER: Final = ModelConfig(name=ModelName.RESNET32X4)
SMALL: Final = ModelConfig(name=ModelName.RESNET8, width=16)
SIDE: Final = 32
CLASSES: Final = 100
CROP: Final = CropFlipStep(op="crop_flip", padding=4)
VIEWS: Final = ViewsConfig(
    weak=BankConfig(recipe=(CROP,), views=1),
    strong=BankConfig(recipe=(CROP, RandAugmentStep(op="randaugment")), views=1),
)


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    n_train: int = 50_000
    dropped: int = 10
    """First steps of a window's course, which make the optimiser's buffers and fill the queue."""
    steps: int = 80
    rounds: int = 3
    largest_batch: int = 512
    student: ModelConfig = STUDENT
    teacher: ModelConfig = TEACHER
    gathered_classes: int = 1000

    def batch(self, wanted: int) -> int:
        """This batch, or the largest that is tried here."""
        return min(wanted, self.largest_batch)


REHEARSAL: Final = Scale(
    n_train=96,
    dropped=1,
    steps=1,
    rounds=1,
    largest_batch=16,
    student=SMALL,
    teacher=SMALL,
    gathered_classes=10,
)


def scale() -> Scale:
    """The sizes for this device."""
    return Scale() if tried_device().type == "cuda" else REHEARSAL


def synchronise() -> None:
    """Wait until the device has done all that it was given."""
    if tried_device().type == "cuda":
        torch.cuda.synchronize()


def network(config: ModelConfig) -> nn.Module:
    """A network for colour images with the same fresh weights each time."""
    torch.manual_seed(0)
    return build_model(config, n_classes=CLASSES, in_channels=3)


def colour_data(n: int, *, side: int = SIDE, classes: int = CLASSES) -> TrainingData:
    """Noise in three colours."""
    return noise_data(n, channels=3, side=side, classes=classes)


def noise_data(n: int, *, channels: int, side: int, classes: int) -> TrainingData:
    """Noise of these sizes; what the pixels show costs no time."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, channels, side, side), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, classes, (n,), generator=generator)
    split = ImageSplit(images, labels, torch.arange(n))
    names = tuple(str(number) for number in range(classes))
    levels = (0.5,) * channels, (0.25,) * channels
    return TrainingData(split, split, names, *levels, digest_of(["noise", n, channels, side, classes]))


@cache
def plain_bench() -> Workbench:
    """Images without a teacher, for all benchmarks of a process."""
    return Workbench(
        colour_data(scale().n_train),
        VIEWS,
        view_seed=VIEW_SEED,
        device=tried_device(),
        render_budget_bytes=render_budget(tried_device()),
    )


def recipe(batch: int) -> TrainingConfig:
    """One epoch in batches of this size."""
    return TrainingConfig(epochs=1, batch_size=scale().batch(batch))


def between(course: Course, bench: Workbench, begin: Callable[[], None], end: Callable[[], None]) -> None:
    """Train a window of steps, and stop; begin and end are called at its ends, when the GPU is idle."""
    first = scale().dropped
    last, asked = first + scale().steps, 0

    def over() -> bool:
        nonlocal asked
        asked += 1
        if asked - 1 in (first, last):
            synchronise()
            (begin if asked - 1 == first else end)()
        return asked - 1 == last

    train(course, bench, on_epoch=never, should_stop=over)


def window_s(course: Course, bench: Workbench) -> list[float]:
    """The mean seconds of a step in a window."""
    marks: list[float] = []

    def mark() -> None:
        marks.append(time.perf_counter())

    between(course, bench, mark, mark)
    return [(marks[1] - marks[0]) / scale().steps]


def medians_s(bench: Workbench, courses: Mapping[str, Callable[[int], Course]]) -> dict[str, float]:
    """Median seconds of a step by course, of windows taken in turns."""
    times_s = interleaved(bench, courses, scale().rounds, timed=window_s)
    return {name: statistics.median(times) for name, times in times_s.items()}


def calls_s(*calls: Callable[[], object], repeats: int) -> list[float]:
    """Median seconds of each call, of windows of `repeats` calls that are not waited for one by one."""
    times_s: list[list[float]] = [[] for _ in calls]
    repeats = repeats if tried_device().type == "cuda" else 1
    for number in range(scale().rounds + 1):
        for place, call in list(enumerate(calls))[:: 1 if number % 2 else -1]:
            synchronise()
            began = time.perf_counter()
            for _ in range(repeats):
                call()
            synchronise()
            if number > 0:  # the first round loads kernels and fills the allocator's pools
                times_s[place].append((time.perf_counter() - began) / repeats)
    return [statistics.median(times) for times in times_s]


def windows() -> str:
    """How the steps of a figure were timed, for its `how`."""
    sizes = scale()
    return f"medians of {sizes.rounds} windows of {sizes.steps} steps of training.loop.train, in turns"


def student_sizes(batch: int) -> str:
    """Student, batch and images of a figure, for its `how`."""
    sizes = scale()
    return (
        f"student {sizes.student.name}, batch {sizes.batch(batch)} of {SIDE}x{SIDE} colour images, "
        f"{CLASSES} classes"
    )


def place() -> str:
    """Where a figure was measured, for its `how`."""
    threads = f"PyTorch with {torch.get_num_threads()} threads on the host"
    return f"{threads}; {surroundings('torch', device=device_name(tried_device()))}"
