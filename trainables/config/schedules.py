"""How hyper-parameters of an objective change over a course: functions of the epoch alone.

So a course that was stopped, or a trial that forks off from another, goes on as one that ran through.
"""

from __future__ import annotations

import math
from enum import StrEnum


class TemperatureSchedule(StrEnum):
    """How a temperature goes from that of the first epoch to that of the last."""

    LINEAR = "linear"
    COSINE = "cosine"


def warm_up(epoch: int, warmup_epochs: int) -> float:
    """min(epoch / warmup_epochs, 1), the first epoch counted as 1, as in DKD (Zhao et al., CVPR 2022)."""
    return min(epoch / warmup_epochs, 1.0)


def temperature_at(
    epoch: int, epochs: int, *, first: float, last: float, schedule: TemperatureSchedule
) -> float:
    """(1 - part) · first + part · last, with part = (epoch - 1) / (epochs - 1), the first epoch counted as 1.

    For cosine the part is (1 - cos(π part)) / 2. A course of a single epoch has the first temperature.

    Raises:
        ValueError: the course has no such epoch.
    """
    if not 1 <= epoch <= epochs:
        raise ValueError(f"found epoch {epoch}; allowed: 1 to {epochs}, the epochs of the course")
    part = (epoch - 1) / max(epochs - 1, 1)
    if schedule is TemperatureSchedule.COSINE:
        part = (1 - math.cos(math.pi * part)) / 2
    return (1 - part) * first + part * last


def ramp_up(epoch: int, over: int) -> float:
    """exp(-5 (1 - t)²) with t from 0 in epoch 1 to 1 after `over` epochs (Laine and Aila, ICLR 2017)."""
    done = min((epoch - 1) / over, 1.0)
    return math.exp(-5.0 * (1.0 - done) ** 2)
