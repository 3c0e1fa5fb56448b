"""What the loop costs beside the training itself, and which students bf16 makes faster."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import torch
import torch.nn.functional as F

from tests.benchmarks.figures import Bound, Figure
from tests.benchmarks.steps import (
    BATCH,
    CLASSES,
    CPU,
    SIDE,
    STUDENT,
    VIEW_SEED,
    VIEWS,
    interleaved,
    network,
    random_data,
    recipe,
)
from tests.benchmarks.surroundings import surroundings
from trainables.config import CeConfig, ModelConfig, ModelName, TrainingPrecision
from trainables.data import ImageSplit
from trainables.tensors import memory_format
from trainables.training.course import Course
from trainables.training.loop import train
from trainables.training.precision import DeviceKind, by_table, device_kind
from trainables.training.workbench import Workbench
from trainables.views.normalise import normalise

# N = training samples, B = samples in the batch, C = channels, H, W = height and width

OVER_PLAIN: Final = Bound(0.97, at_least=True)
CHOSEN: Final = Bound(1.0, at_least=True)
LEFT_OUT: Final = Bound(1.15, at_least=False)
"""Where auto stays with fp32, bf16 would have been no clear gain."""
N_EPOCH: Final = 1024
N_SELECTION: Final = 64
SHOWN: Final = f"batch {BATCH} of {SIDE}x{SIDE} grey images, {CLASSES} classes, channels_last, 1 thread"
SIZES: Final = f"student {STUDENT.name} of width {STUDENT.width}, {SHOWN}"


def loop_over_plain_torch(rounds: int = 30) -> Figure:
    """Images a second of the loop's training epochs, over those of a loop written out by hand."""
    torch.set_num_threads(1)
    workbench = _workbench()
    ours, plain = network(STUDENT), _PlainLoop(workbench)
    rates: dict[str, list[float]] = {"ours": [], "plain": []}
    turns: dict[str, Callable[[int], float]] = {
        "ours": lambda seed: _images_per_s(Course(ours, CeConfig(), recipe(), seed), workbench),
        "plain": lambda seed: plain.epoch_images_per_s(),
    }
    for number in range(rounds + 1):
        for name in list(turns)[:: 1 if number % 2 else -1]:
            rate = turns[name](number)
            if number > 0:  # the first round also renders the views
                rates[name].append(rate)
    # Neighbours in time are compared: the machine may be twice as fast in one round as in another.
    ratios = [one / other for one, other in zip(rates["ours"], rates["plain"], strict=True)]
    ours_per_s, plain_per_s = (statistics.median(values) for values in rates.values())
    how = (
        f"median of the ratios of {rounds} pairs of epochs of {N_EPOCH} images, in turns in one process: "
        f"trainables.training.loop.train with cross-entropy on crop-flip views ({ours_per_s:.0f} images/s, "
        f"without the evaluation after the epoch) and a loop by hand on float images that lie ready, with "
        f"torch's SGD ({plain_per_s:.0f} images/s); {SIZES}, fp32; {surroundings('torch')}"
    )
    return Figure(statistics.median(ratios), "x", how, OVER_PLAIN)


def bf16_over_fp32(name: str, width: str) -> Figure:
    """Images a second in bf16 over those in fp32: what the table of `auto` is made from."""
    torch.set_num_threads(1)
    workbench, student = _workbench(), ModelConfig(name=ModelName(name), width=int(width) or None)
    kind = device_kind(CPU)
    rounds = 1 if kind is DeviceKind.OTHER else 8  # emulated, a step in bf16 takes seconds
    chosen = by_table(network(student), CPU, workbench.input_shape)
    models = {precision: network(student) for precision in (TrainingPrecision.FP32, TrainingPrecision.BF16)}

    def course_in(precision: TrainingPrecision) -> Callable[[int], Course]:
        return lambda seed: Course(models[precision], CeConfig(), recipe(), seed, precision)

    times_s = interleaved(workbench, {str(precision): course_in(precision) for precision in models}, rounds)
    step_s = {name: statistics.median(times) for name, times in times_s.items()}
    how = (
        f"medians of {len(times_s['fp32'])} training steps each, in turns in one process: fp32 "
        f"{BATCH / step_s['fp32']:.0f} and bf16 {BATCH / step_s['bf16']:.0f} images/s; on this kind of "
        f"device ({kind}) auto chose {chosen}; student {name} of width {width}, {SHOWN}; "
        f"{surroundings('torch')}"
    )
    bound = CHOSEN if chosen.precision is TrainingPrecision.BF16 else LEFT_OUT
    return Figure(step_s["fp32"] / step_s["bf16"], "x", how, bound)


class _PlainLoop:
    """What one writes without a library: ready images, an optimiser, five lines a step."""

    def __init__(self, workbench: Workbench) -> None:
        self.model = network(STUDENT)
        self.layout = memory_format(self.model)
        self.model.to(memory_format=self.layout)  # type: ignore[call-overload]
        data = workbench.data
        images = normalise(data.train.images[:], data.mean, data.std)
        self.images_NCHW = images.contiguous(memory_format=self.layout)
        self.labels_N = workbench.labels_N
        config = recipe()
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )

    def epoch_images_per_s(self) -> float:
        """Train one epoch in shuffled order."""
        began = time.perf_counter()
        self.model.train()
        for rows_B in torch.split(torch.randperm(len(self.labels_N)), BATCH):
            loss = F.cross_entropy(self.model(self.images_NCHW[rows_B]), self.labels_N[rows_B])
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
        return len(self.labels_N) / (time.perf_counter() - began)


def _images_per_s(course: Course, workbench: Workbench) -> float:
    told: list[dict[str, float]] = []
    train(course, workbench, on_epoch=lambda _, metrics: told.append(metrics))
    return told[0]["train/images_per_s"]


def _workbench() -> Workbench:
    data = random_data()
    small = replace(data, train=_first(data.train, N_EPOCH), selection=_first(data.selection, N_SELECTION))
    return Workbench(small, VIEWS, view_seed=VIEW_SEED, device=CPU)


def _first(split: ImageSplit, n: int) -> ImageSplit:
    return ImageSplit(split.images[:n], split.labels[:n], split.ids[:n])
