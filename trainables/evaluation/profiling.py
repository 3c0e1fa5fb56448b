"""What a student costs: parameters, bytes on disk, milliseconds an image."""

from __future__ import annotations

import contextlib
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class StudentFigures:
    """A student's costs; the latencies hold for one image at a time on the named device."""

    params: int
    size_bytes: int
    """Of the safetensors file as written."""
    latency_ms: float
    """Median of the timed forwards."""
    latency_p95_ms: float
    latency_device: str


def profile_student(
    model: nn.Module, *, input_shape: tuple[int, int, int], device: torch.device | None = None
) -> StudentFigures:
    """Count, weigh and time a student on the device that it is on.

    The input is (channels, height, width). After a warm-up, forwards of one image are timed one by one
    until a second is over (at least 30, at most 300), with one thread on a CPU and synchronised on a GPU.
    Timing depends on the architecture, hardly on the weights.

    Raises:
        StillhouseError: the network cannot take such an input.
    """
    size_bytes = _size_of(model)
    own = (parameter.device for parameter in model.parameters())
    device = device or next(own, torch.device("cpu"))
    image = torch.rand(1, *input_shape, device=device)
    with evaluating(model), torch.inference_mode(), _one_thread():
        try:
            times_ms = sorted(_forward_times_ms(model, image))
        except RuntimeError as error:
            raise StillhouseError(
                f"the network cannot take an input of shape {input_shape}: {error}"
            ) from error
    return StudentFigures(
        params=count_parameters(model),
        size_bytes=size_bytes,
        latency_ms=statistics.median(times_ms),
        latency_p95_ms=times_ms[math.ceil(0.95 * len(times_ms)) - 1],
        latency_device=device_name(device),
    )


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


def _forward_times_ms(model: nn.Module, image: Tensor) -> list[float]:
    for _ in range(WARM_UP_FORWARDS):
        model(image)
    times_ms: list[float] = []
    began = time.perf_counter()
    while len(times_ms) < MAX_FORWARDS:
        if len(times_ms) >= MIN_FORWARDS and time.perf_counter() - began > BUDGET_S:
            break
        _synchronise(image.device)
        start_ns = time.perf_counter_ns()
        model(image)
        _synchronise(image.device)
        times_ms.append((time.perf_counter_ns() - start_ns) / 1e6)
    return times_ms


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
