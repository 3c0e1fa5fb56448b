"""What a student costs where it is used, as a slot measured it after the search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import Field

from trainables.config import Config

TEACHER: Final = "teacher"
"""Where figures are kept by trial id, the teacher's are kept under this name."""


LATENCIES: Final = (
    "latency_ms",
    "latency_p95_ms",
    "latency_device",
    "latency_64_ms",
    "latency_64_p95_ms",
)
"""Fields of the same names in costs, and in what a summary says of students and of the champion."""


def is_none(value: object) -> bool:
    """Whether a field is left out of what is written: nothing is known of it."""
    return value is None


def member_name(number: int) -> str:
    """Under which name figures of one of several teachers are kept, which are counted from 1."""
    return f"{TEACHER} {number}"


class StudentCosts(Config):
    """Costs of one architecture; latencies are those of one image at a time, unless they say another number.

    A ledger of an earlier version has no 95th percentile, device, threads or batch: they are none then.
    """

    params: float
    size_bytes: float = Field(description="of the safetensors file")
    latency_ms: float = Field(description="median")
    latency_p95_ms: float | None = Field(None, description="95th percentile")
    latency_device: str | None = Field(None, description="model name of the GPU or CPU it was measured on")
    latency_threads: float | None = Field(
        None, description="of a CPU that computed", exclude_if=lambda value: value is None
    )
    latency_64_ms: float | None = Field(
        None, description="median of a whole batch of 64", exclude_if=lambda value: value is None
    )
    latency_64_p95_ms: float | None = Field(
        None, description="95th percentile of such a batch", exclude_if=lambda value: value is None
    )

    def numbers(self) -> dict[str, float]:
        """The figures by name, without device and threads; those that are not known are left out."""
        values = self.model_dump(exclude={"latency_device", "latency_threads"}, exclude_none=True)
        return {name: float(value) for name, value in values.items()}


def numbers_of(costs: Mapping[str, StudentCosts]) -> dict[str, dict[str, float]]:
    """The figures of each student, as selection and charts compare them."""
    return {trial: cost.numbers() for trial, cost in costs.items()}
