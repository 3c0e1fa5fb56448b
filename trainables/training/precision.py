"""Which precision a student trains in: bf16 autocast where this device is clearly faster with it."""

from __future__ import annotations

import contextlib
import copy
import logging
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.config import TrainingPrecision
from trainables.tensors import memory_format

CLEARLY_FASTER = 1.15
"""The least speed-up for which bf16 is taken; a tie that noise decides would differ from run to run."""
MIN_ROUNDS = 5
MAX_ROUNDS = 15
BUDGET_S = 1.5
BF16_INSTRUCTIONS: Final = frozenset({"avx512_bf16", "amx_bf16", "bf16", "svebf16"})
"""As Linux names them: two of x86, two of Arm."""

log = logging.getLogger(__name__)

# B = samples in the batch, C = classes


@dataclass(frozen=True)
class PrecisionFigures:
    """Median seconds of a training step in each precision."""

    fp32_s: float
    bf16_s: float

    @property
    def choice(self) -> TrainingPrecision:
        """bf16 where it is at least 1.15 times as fast, else fp32."""
        faster = self.fp32_s >= CLEARLY_FASTER * self.bf16_s
        return TrainingPrecision.BF16 if faster else TrainingPrecision.FP32


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bf16 itself; where it does not, bf16 is emulated and slow."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and cpu_has_bf16()


def cpu_has_bf16(cpu_info: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether Linux lists instructions for bf16 among the processor's; PyTorch 2.9 cannot be asked."""
    lines = cpu_info.read_text(encoding="utf-8").splitlines() if cpu_info.is_file() else []
    listed = (line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features")))
    return any(not BF16_INSTRUCTIONS.isdisjoint(names) for names in listed)


def autocast(precision: TrainingPrecision, device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward pass in this precision; give it a resolved one."""
    if precision is TrainingPrecision.BF16:
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def measure_precision(
    model: nn.Module,
    *,
    batch_size: int,
    input_shape: tuple[int, int, int],
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> PrecisionFigures:
    """Time forward and backward passes of a copy of the model in fp32 and bf16, in turns.

    `input_shape` is (channels, height, width). After one step of each, 5 to 15 rounds of both are timed,
    until 1.5 seconds are over; the medians count. A network that cannot run in bf16 counts as infinitely
    slow in it. The model, its statistics and the random state stay as they are.

    Raises:
        RuntimeError: the network fails on such a batch in fp32.
    """
    layout = memory_format(model)
    trial = copy.deepcopy(model).to(device, memory_format=layout).train()  # type: ignore[call-overload]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        images = torch.rand(batch_size, *input_shape, device=device).contiguous(memory_format=layout)

        def timed_step(precision: TrainingPrecision) -> float:
            began = clock()
            _step(trial, images, precision)
            return clock() - began

        timed_step(TrainingPrecision.FP32)
        try:
            timed_step(TrainingPrecision.BF16)
        except RuntimeError as error:  # NotImplementedError too: an operator without a kernel for bf16
            log.info("this network trains in fp32, since it fails in bf16: %s", error)
            return PrecisionFigures(timed_step(TrainingPrecision.FP32), float("inf"))
        return _in_turns(timed_step, clock)


def _in_turns(
    timed_step: Callable[[TrainingPrecision], float], clock: Callable[[], float]
) -> PrecisionFigures:
    times_s: dict[TrainingPrecision, list[float]] = {
        TrainingPrecision.FP32: [],
        TrainingPrecision.BF16: [],
    }
    began = clock()
    for number in range(MAX_ROUNDS):
        if number >= MIN_ROUNDS and clock() - began > BUDGET_S:
            break
        # The one that goes first changes, so that drift hits both alike.
        for precision in list(times_s)[:: 1 if number % 2 else -1]:
            times_s[precision].append(timed_step(precision))
    return PrecisionFigures(*(statistics.median(times) for times in times_s.values()))


def _step(model: nn.Module, images: Tensor, precision: TrainingPrecision) -> None:
    """One forward and backward pass, finished when it returns."""
    with autocast(precision, images.device):
        logits_BC: Tensor = model(images)
    labels_B = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    model.zero_grad(set_to_none=True)
    F.cross_entropy(logits_BC.float(), labels_B).backward()  # type: ignore[no-untyped-call]
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
