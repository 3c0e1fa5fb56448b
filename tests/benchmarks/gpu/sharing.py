"""What slots that share a GPU gain: several processes that train on it at the same time, over one."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from typing import Final

import torch

from tests.benchmarks.figures import Figure
from tests.benchmarks.gpu.timed_steps import (
    network,
    place,
    plain_bench,
    recipe,
    scale,
    student_sizes,
    window_s,
)
from tests.gpu.tried import tried_device
from trainables.config import CeConfig, TrainingPrecision
from trainables.training.course import Course

BATCH: Final = 64
TRAINED_S: Final = 4.0
START_S: Final = 100.0
"""How long processes wait for each other: importing PyTorch, starting the GPU, rendering the views."""


def sharing_gain(precision: str, processes: str) -> Figure:
    """Images a second of all processes together, over those of one alone."""
    n = int(processes) if tried_device().type == "cuda" else 2
    alone_per_s, together_per_s = _images_per_s(1, precision), _images_per_s(n, precision)
    how = (
        f"{n} processes that train on one GPU at the same time for {TRAINED_S:g} s, as slots with "
        f"`gpus_per_worker: {1 / n:g}` do ({together_per_s:,.0f} images/s together), over one alone "
        f"({alone_per_s:,.0f} images/s), windows of {scale().steps} steps of training.loop.train with "
        f"cross-entropy; {student_sizes(BATCH)}, {precision}; {place()}"
    )
    return Figure(together_per_s / alone_per_s, "x", how)


def _images_per_s(n: int, precision: str) -> float:
    context = multiprocessing.get_context("spawn")
    ready, rates = context.Barrier(n), context.Queue()
    trainers = [context.Process(target=_train, args=(precision, ready, rates), daemon=True) for _ in range(n)]
    for trainer in trainers:
        trainer.start()
    total = sum(rates.get(timeout=START_S + 3 * TRAINED_S) for _ in trainers)
    for trainer in trainers:
        trainer.join()
    return float(total)


def _train(precision: str, ready: Barrier, rates: Queue[float]) -> None:
    """Train windows until the time is over, beginning together with the other processes."""
    torch.set_num_threads(1)
    bench, model, steps = plain_bench(), network(scale().student), 0
    course = Course(model, CeConfig(), recipe(BATCH), 0, TrainingPrecision(precision))
    window_s(course, bench)
    ready.wait(START_S)
    began = time.perf_counter()
    spent_s = 0.0
    while time.perf_counter() - began < (TRAINED_S if tried_device().type == "cuda" else 0.1):
        spent_s += window_s(course, bench)[0] * scale().steps
        steps += scale().steps
    rates.put(steps * scale().batch(BATCH) / spent_s)
