"""How much of a training step a GPU spends waiting for its next kernel to be started."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from tests.benchmarks.figures import Figure
from tests.benchmarks.gpu.steps import TF32, HandMade
from tests.benchmarks.gpu.timed_steps import (
    between,
    calls_s,
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

WARM_STEPS = 5


def idle_share(precision: str, batch: str) -> Figure:
    """The fraction of a step of the loop in which no kernel runs."""
    size, wanted, bench = scale().batch(int(batch)), TrainingPrecision(precision), plain_bench()
    model = network(scale().student)

    def course(seed: int) -> Course:
        return Course(model, CeConfig(), recipe(size), seed, wanted)

    walls_s = [window_s(course(seed), bench)[0] for seed in range(scale().rounds + 1)][1:]
    on_gpu = tried_device().type == "cuda"
    watched = profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU])
    between(course(0), bench, watched.start, watched.stop)
    kernel_s = kernels_s(watched) / scale().steps
    wall_s = statistics.median(walls_s)
    how = (
        f"1 less the time of a step's kernels and copies by torch.profiler ({1e3 * kernel_s:.3f} ms) over "
        f"its time without the profiler ({1e3 * wall_s:.3f} ms), means of {scale().steps} steps of "
        f"training.loop.train with cross-entropy; {student_sizes(size)}, {precision}; {TF32}; {place()}"
    )
    return Figure(1 - kernel_s / wall_s, "x", how)


def graph_gain(precision: str, batch: str) -> Figure:
    """Speed of a step that is replayed as one CUDA graph, over that of the same step kernel by kernel."""
    size, wanted = scale().batch(int(batch)), TrainingPrecision(precision)
    by_kernel, whole = (HandMade.on_noise(size, wanted, fused=True) for _ in range(2))
    kernels_s, graph_s = calls_s(by_kernel.step, _replayed(whole), repeats=scale().steps)
    how = (
        f"medians of {scale().rounds} windows of {scale().steps} steps on one batch, in turns: forward, "
        f"cross-entropy, backward and fused SGD kernel by kernel ({1e3 * kernels_s:.3f} ms), and the same "
        f"replayed as one CUDA graph ({1e3 * graph_s:.3f} ms), so that "
        f"{max(0.0, 1 - graph_s / kernels_s):.0%} of the step is starting kernels; {student_sizes(size)}, "
        f"{precision}; {TF32}; {place()}"
    )
    return Figure(kernels_s / graph_s, "x", how)


def _replayed(student: HandMade) -> Callable[[], None]:
    """The student's step as a graph; the step itself where there is no GPU."""
    if tried_device().type != "cuda":
        return student.step
    # As PyTorch's notes on CUDA graphs ask for: some steps on a stream of their own come first.
    beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(WARM_STEPS):
            student.step()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    student.optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        student.step()
    return graph.replay


def kernels_s(watched: profile) -> float:
    """Seconds of all that ran on the device; in a rehearsal, of all operations on the CPU."""
    on_gpu = tried_device().type == "cuda"
    wanted = "CUDA" if on_gpu else "CPU"
    # A user's annotation, such as that of an optimiser's step, spans kernels that are counted themselves.
    events = [
        event
        for event in watched.key_averages()
        if event.device_type.name == wanted and not event.is_user_annotation
    ]
    spent_us = sum(e.self_device_time_total if on_gpu else e.self_cpu_time_total for e in events)
    if not spent_us:
        raise RuntimeError("torch.profiler recorded nothing that ran on the device")
    return float(spent_us) / 1e6
