"""What a student costs: parameters, bytes on disk, milliseconds an image."""

from __future__ import annotations

import contextlib
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from trainables.errors import StillhouseError
from trainables.models.foreign.onnx_network import onnx_networks
from trainables.models.modes import evaluating
from trainables.models.weights import count_parameters, save_weights

WARM_UP_FORWARDS = 10
MIN_FORWARDS = 30
MAX_FORWARDS = 300
BUDGET_S = 1.0
LARGE_BATCH: Final = 64
LARGE_WARM_UP: Final = 1
LARGE_MIN_FORWARDS: Final = 5
"""Of such a batch, which may take seconds where there is no GPU."""
THREADS: Final = 1
"""Of a CPU, for every figure of time: so they compare, whatever a machine has."""


@dataclass(frozen=True)
class Timing:
    """How long a forward pass takes, in milliseconds."""

    median_ms: float
    p95_ms: float
    """95th percentile."""


@dataclass(frozen=True)
class StudentFigures:
    """A student's costs; latencies hold on the named device, for one image unless they name a number."""

    params: int
    size_bytes: int
    """Of the safetensors file as written."""
    latency_ms: float
    """Median of the timed forwards."""
    latency_p95_ms: float
    latency_device: str
    latency_threads: int
    """Of the CPU."""
    latency_64_ms: float | None = None
    """Median of a whole batch of 64; none where it was not asked for, or does not fit the GPU."""
    latency_64_p95_ms: float | None = None


def profile_student(
    model: nn.Module,
    *,
    input_shape: tuple[int, int, int],
    device: torch.device | None = None,
    with_batch: bool = True,
) -> StudentFigures:
    """Count, weigh and time a student on the device that it is on.

    The input is (channels, height, width). After a warm-up, forwards of one image are timed one by one
    until a second is over (at least 30, at most 300), with one thread on a CPU and synchronised on a GPU;
    `with_batch` those of 64 images too (at least 5).
    Timing depends on the architecture, hardly on the weights.

    Raises:
        StillhouseError: the network cannot take such an input.
    """
    size_bytes = _size_of(model)
    own = (parameter.device for parameter in model.parameters())
    device = device or next(own, torch.device("cpu"))
    with evaluating(model), torch.inference_mode(), _one_thread():
        try:
            one = time_forwards(model, torch.rand(1, *input_shape, device=device))
            many = _timed_batch(model, input_shape, device) if with_batch else None
        except RuntimeError as error:
            raise StillhouseError(
                f"the network cannot take an input of shape {input_shape}: {error}"
            ) from error
    return StudentFigures(
        params=count_parameters(model),
        size_bytes=size_bytes,
        latency_ms=one.median_ms,
        latency_p95_ms=one.p95_ms,
        latency_device=device_name(device),
        latency_threads=THREADS,
        latency_64_ms=None if many is None else many.median_ms,
        latency_64_p95_ms=None if many is None else many.p95_ms,
    )


def time_forwards(
    forward: Callable[[Tensor], object],
    images: Tensor,
    *,
    warm_up: int = WARM_UP_FORWARDS,
    least: int = MIN_FORWARDS,
) -> Timing:
    """Time forwards of a batch one by one until a second is over, at least `least` of them and at most 300.

    The threads are those that the caller has set.
    """
    times_ms = sorted(_forward_times_ms(forward, images, warm_up, least))
    return Timing(statistics.median(times_ms), times_ms[math.ceil(0.95 * len(times_ms)) - 1])


def time_large_batch(forward: Callable[[Tensor], object], images: Tensor) -> Timing:
    """The same for a batch that may take seconds: at least 5 forwards."""
    return time_forwards(forward, images, warm_up=LARGE_WARM_UP, least=LARGE_MIN_FORWARDS)


def _timed_batch(model: nn.Module, input_shape: tuple[int, int, int], device: torch.device) -> Timing | None:
    try:
        return time_large_batch(model, torch.rand(LARGE_BATCH, *input_shape, device=device))
    except torch.OutOfMemoryError:  # a GPU that other workers share; the figure is not worth a run
        return None


def device_name(device: torch.device) -> str:
    """The model name of the GPU or CPU behind a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.is_file():
        for line in cpu_info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _size_of(model: nn.Module) -> int:
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "student.safetensors"
        save_weights(model, written, {})
        return written.stat().st_size + sum(network.graph.n_bytes for network in onnx_networks(model))


def _forward_times_ms(
    forward: Callable[[Tensor], object], images: Tensor, warm_up: int, least: int
) -> list[float]:
    for _ in range(warm_up):
        forward(images)
    times_ms: list[float] = []
    began = time.perf_counter()
    while len(times_ms) < MAX_FORWARDS:
        if len(times_ms) >= least and time.perf_counter() - began > BUDGET_S:
            break
        _synchronise(images.device)
        start_ns = time.perf_counter_ns()
        forward(images)
        _synchronise(images.device)
        times_ms.append((time.perf_counter_ns() - start_ns) / 1e6)
    return times_ms


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
