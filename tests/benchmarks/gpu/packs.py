"""What packs and captured steps gain on a GPU: trials an hour, and how near a step is to its kernels."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from tests.benchmarks.figures import Bound, Figure
from tests.benchmarks.gpu.launches import kernels_s
from tests.benchmarks.gpu.steps import TF32
from tests.benchmarks.gpu.teachers import Kept
from tests.benchmarks.gpu.timed_steps import VIEWS, calls_s, noise_data, place, scale, synchronise
from tests.gpu.tried import tried_device
from tests.unit.trainables.training.replayed_steps import Counted
from trainables.config import KdConfig, ModelConfig, ModelName, TrainingConfig, ViewsConfig
from trainables.data import ImageSplit
from trainables.models import build_model
from trainables.training.capture.recorders import Plain
from trainables.training.course import Course
from trainables.training.loop import steps_alone, train
from trainables.training.packs.measure import ALONE, PackChoice, fastest
from trainables.training.packs.pack import Pack, Ticket
from trainables.training.workbench import Workbench, render_budget

TRIED_EPOCHS: Final = 2
"""So many are trained: the first also records the step, and the second is like all that would follow."""
TRIAL_EPOCHS: Final = 8
TRIALS: Final = 64
STEP_OVER_KERNELS: Final = Bound(1.15)
KD_64: Final = Bound(0.6)


@dataclass(frozen=True)
class Setup:
    """What is trained, and on what."""

    what: str
    network: Callable[[], nn.Module]
    channels: int
    side: int
    classes: int
    batch: int
    gain: Bound | None = None


def _resnet8x4() -> nn.Module:
    return build_model(scale().student, n_classes=100, in_channels=3)


def _resnet8_narrow() -> nn.Module:
    return build_model(ModelConfig(name=ModelName.RESNET8, width=8), n_classes=10, in_channels=1)


def of_airbench_size() -> nn.Module:
    """Two million parameters in seven convolutions, in the widths of airbench94 (K. Jordan, 2024)."""
    widths = (64, 256, 256) if tried_device().type == "cuda" else (4, 8, 8)
    layers: list[nn.Module] = [nn.Conv2d(3, 24, 2), nn.GELU()]
    before = 24
    for width in widths:
        layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(width)]
        layers += [
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.GELU(),
        ]
        before = width
    return nn.Sequential(*layers, nn.MaxPool2d(3), nn.Flatten(), nn.Linear(before, 10))


SETUPS: Final = {
    "resnet8x4": Setup("resnet8x4", _resnet8x4, 3, 32, 100, 64, Bound(4.0, at_least=True)),
    "small": Setup("resnet8 of width 8", _resnet8_narrow, 1, 28, 10, 64, Bound(15.0, at_least=True)),
    "airbench": Setup("a network of airbench94's size", of_airbench_size, 3, 32, 10, 512),
}


_KEPT: Final[dict[str, Kept]] = {}
"""The caches of benches that were made: a cache's folder lasts as long as it."""


@dataclass(frozen=True)
class Rates:
    """Seconds of a trial: alone, alone with every step called, and its part of a pack's."""

    alone_s: float
    called_s: float
    packed_s: float
    choice: PackChoice


def packed_trials_gain(name: str) -> Figure:
    """Trials an hour in the packs that auto chooses, over those of a process that trains one at a time."""
    setup, rates = SETUPS[name], _rates(name)
    how = (
        f"auto chose {rates.choice} and needs {rates.packed_s:.2f} s a trial "
        f"({3600 / rates.packed_s:,.0f} an hour), one process that trains them one after the "
        f"other, steps captured as well, {rates.alone_s:.2f} s, and "
        f"{rates.called_s:.2f} s with every step called; {_sizes(setup)}"
    )
    return Figure(rates.alone_s / rates.packed_s, "x", how, _on_gpu(setup.gain))


def kd_64_trials() -> Figure:
    """Time of 64 trials of a network of airbench's size in packs, over that of one after the other."""
    setup, rates = SETUPS["airbench"], _rates("airbench")
    # The last pack may have fewer lanes, and takes as long as a full one at most.
    packs = -(-TRIALS // rates.choice.lanes)
    packed_s = packs * rates.choice.lanes * rates.packed_s
    how = (
        f"{TRIALS} trials, from one pack ({rates.choice}) and one trial: {packs} packs would take "
        f"{packed_s:.0f} s, one after the other in the same slot {TRIALS * rates.alone_s:.0f} s; "
        f"{_sizes(setup)}"
    )
    return Figure(packed_s / (TRIALS * rates.alone_s), "x", how, _on_gpu(KD_64))


def step_over_kernels() -> Figure:
    """Time of a captured step of a student alone, over that of its kernels.

    Raises:
        RuntimeError: the step was not captured.
    """
    setup, bench, on_gpu = SETUPS["resnet8x4"], _bench("resnet8x4"), tried_device().type == "cuda"
    captures, recorder = bench.recorder, Counted(bench.recorder())
    bench.recorder = lambda: recorder
    step = steps_alone(_course(setup, 0), bench)
    bench.recorder = captures
    for _ in range(scale().dropped):
        step()
    if on_gpu and (recorder.refused or not recorder.recorded):
        raise RuntimeError("the step was not captured; the log says why")
    (wall_s,) = calls_s(step, repeats=scale().steps)
    synchronise()
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as watched:
        for _ in range(scale().steps):
            step()
        synchronise()
    kernel_s = kernels_s(watched) / scale().steps
    how = (
        f"a step of a course alone, captured, with what brings its batch ({1e3 * wall_s:.3f} ms, medians of "
        f"{scale().rounds} windows of {scale().steps}), over its kernels and copies by torch.profiler "
        f"({1e3 * kernel_s:.3f} ms); {_sizes(setup)}"
    )
    return Figure(wall_s / kernel_s, "x", how, _on_gpu(STEP_OVER_KERNELS))


def _on_gpu(bound: Bound | None) -> Bound | None:
    """Figures of a rehearsal mean nothing, and keep no bound."""
    return bound if tried_device().type == "cuda" else None


def _sizes(setup: Setup) -> str:
    return (
        f"KD from cached answers, {setup.what}, batch {scale().batch(setup.batch)} of "
        f"{setup.side}x{setup.side} images, {scale().n_train:,} of them in training and a tenth "
        f"as many judged, {TRIAL_EPOCHS} epochs: the first as measured, the "
        f"others as long as the second; fp32, {TF32}; {place()}"
    )


@cache
def _bench(name: str) -> Workbench:
    """Noise, and what a linear teacher said of it: who answered costs a student nothing."""
    setup = SETUPS[name]
    data = noise_data(scale().n_train, channels=setup.channels, side=setup.side, classes=setup.classes)
    whole, few = data.train, slice(0, scale().n_train // 10)
    data = replace(data, selection=ImageSplit(whole.images[few], whole.labels[few], whole.ids[few]))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pixels = setup.channels * setup.side**2
        teacher = nn.Sequential(nn.Flatten(), nn.Linear(pixels, setup.classes))
    views = ViewsConfig(weak=VIEWS.weak)
    kept = _KEPT[name] = Kept.of(data, teacher, views)
    return kept.bench(views, render_budget(tried_device()))


def _course(setup: Setup, number: int) -> Course:
    torch.manual_seed(number)
    recipe = TrainingConfig(
        epochs=TRIAL_EPOCHS, batch_size=scale().batch(setup.batch), lr=0.01 * (1 + number % 8)
    )
    return Course(setup.network(), KdConfig(temperature=2.0 + number % 8), recipe, number)


def _rates(name: str) -> Rates:
    setup, bench, on_gpu = SETUPS[name], _bench(name), tried_device().type == "cuda"
    # In a rehearsal two, whatever is faster: so that packs are rehearsed.
    choice = fastest(_course(setup, 0), bench, most=None if on_gpu else 2, exactly=not on_gpu)
    alone_s = _alone_s(setup, bench)
    captures, bench.recorder = bench.recorder, Plain
    called_s = _alone_s(setup, bench)
    bench.recorder = captures
    packed_s = alone_s if choice == ALONE else _packed_s(setup, bench, choice) / choice.lanes
    return Rates(alone_s, called_s, packed_s, choice)


def _packed_s(setup: Setup, bench: Workbench, choice: PackChoice) -> float:
    """Seconds of all epochs of a pack."""
    if choice.form is None:
        raise ValueError("a pack has a form")
    tickets = [Ticket(_course(setup, number), lambda *_: None) for number in range(choice.lanes)]
    pack = Pack(tickets[0], bench, choice.form)
    for ticket in tickets:
        pack.admit(ticket)
    marks = [time.perf_counter()]
    for _ in range(TRIED_EPOCHS):
        pack.train_epoch()
        marks.append(time.perf_counter())
    return _of_all(marks)


def _alone_s(setup: Setup, bench: Workbench) -> float:
    """Seconds of all epochs of a trial alone."""
    marks = [time.perf_counter()]
    train(
        _course(setup, 0),
        bench,
        on_epoch=lambda *_: marks.append(time.perf_counter()),
        should_stop=lambda: len(marks) > TRIED_EPOCHS,
    )
    return _of_all(marks)


def _of_all(marks: list[float]) -> float:
    first_s, second_s = marks[1] - marks[0], marks[2] - marks[1]
    return first_s + (TRIAL_EPOCHS - 1) * second_s
