"""Which precision a student trains in: a table of device kinds and layers decides, never a stopwatch."""

from __future__ import annotations

import contextlib
import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.config import TrainingPrecision
from trainables.models.foreign.copies import copied
from trainables.tensors import memory_format

TABLE_VERSION: Final = 1
"""Raise it with every change of `TABLE`: it stands beside the precision of every student."""
BF16_INSTRUCTIONS: Final = frozenset({"avx512_bf16", "amx_bf16", "bf16", "svebf16"})
"""As Linux names them: two of x86, two of Arm."""
ASKED_FOR: Final = "asked for"
BY_TABLE: Final = f"table {TABLE_VERSION}"
MEASURED: Final = "measured by an earlier version"
KEPT: Final = "as its training began"
"""What chose a precision: the recipe, the table, an agreement of an older ledger, or a kept state."""

log = logging.getLogger(__name__)

# B = samples in the batch, C = classes


class DeviceKind(StrEnum):
    """What counts of a device."""

    CUDA_BF16 = "GPU with bf16"
    CPU_BF16 = "CPU with bf16"
    OTHER = "any other"


@dataclass(frozen=True)
class Row:
    """Which layers make a network train in bf16 on a kind of device."""

    least_channels: int
    """In and out, of a convolution without groups."""
    least_weights: int
    """Of a linear layer."""
    grouped_too: bool
    """Whether convolutions in groups gain; where they do not, a network that has one trains in fp32."""


TABLE: Final = MappingProxyType(
    {
        DeviceKind.CUDA_BF16: Row(least_channels=8, least_weights=1 << 16, grouped_too=True),
        DeviceKind.CPU_BF16: Row(least_channels=16, least_weights=1 << 20, grouped_too=False),
    }
)
"""A kind that has no row trains in fp32, and so does a network without such a layer."""


@dataclass(frozen=True)
class Chosen:
    """A precision, and what chose it."""

    precision: TrainingPrecision
    by: str

    def __str__(self) -> str:
        """As ledger, summary, card and MLflow have it."""
        return f"{self.precision.value} ({self.by})"

    @classmethod
    def read(cls, text: str) -> Chosen:
        """What `str` wrote; the bare word of an earlier version was measured."""
        precision, _, by = text.partition(" (")
        return cls(TrainingPrecision(precision), by.removesuffix(")") or MEASURED)


def by_table(model: nn.Module, device: torch.device, input_shape: tuple[int, int, int]) -> Chosen:
    """What `auto` comes to for this network on this device; `input_shape` is (channels, height, width).

    A network that fails in bf16 trains in fp32. Model, statistics and random state stay as they are.
    """
    wished = _in_table(model, device_kind(device))
    if wished is TrainingPrecision.BF16 and not _runs_in_bf16(model, device, input_shape):
        return Chosen(TrainingPrecision.FP32, f"{BY_TABLE}; it fails in bf16")
    return Chosen(wished, BY_TABLE)


def device_kind(device: torch.device) -> DeviceKind:
    """By whether the hardware multiplies bf16 itself; where it does not, bf16 is emulated and slow."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return DeviceKind.CUDA_BF16
    return DeviceKind.CPU_BF16 if device.type == "cpu" and cpu_has_bf16() else DeviceKind.OTHER


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


def _in_table(model: nn.Module, kind: DeviceKind) -> TrainingPrecision:
    row = TABLE.get(kind)
    if row is None:
        return TrainingPrecision.FP32
    gains = False
    for layer in model.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            if layer.groups > 1 and not row.grouped_too:
                return TrainingPrecision.FP32
            gains |= min(layer.in_channels, layer.out_channels) >= row.least_channels
        elif isinstance(layer, nn.Linear):
            gains |= layer.in_features * layer.out_features >= row.least_weights
    return TrainingPrecision.BF16 if gains else TrainingPrecision.FP32


def _runs_in_bf16(model: nn.Module, device: torch.device, input_shape: tuple[int, int, int]) -> bool:
    """Whether a training step on two images passes: not every operator has a kernel for bf16."""
    layout = memory_format(model)
    trial = copied(model).to(device, memory_format=layout).train()  # type: ignore[call-overload]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        images = torch.rand(2, *input_shape, device=device).contiguous(memory_format=layout)
        try:
            with autocast(TrainingPrecision.BF16, device):
                logits_BC: Tensor = trial(images)
            labels_B = torch.zeros(len(images), dtype=torch.int64, device=device)
            F.cross_entropy(logits_BC.float(), labels_B).backward()  # type: ignore[no-untyped-call]
        except torch.OutOfMemoryError:  # what else uses the GPU at this moment says nothing of the network
            raise
        except RuntimeError as error:  # NotImplementedError too: an operator without a kernel for bf16
            log.info("this network trains in fp32, since it fails in bf16: %s", error)
            return False
    return True
