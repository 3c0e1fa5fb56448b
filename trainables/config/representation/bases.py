"""What hyper-parameters of objectives of representations share: labels, soft targets, features."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from pydantic import Field

from trainables.config.base import FiniteFloat
from trainables.config.objective_base import (
    EMBEDDING,
    FinalTemperature,
    ObjectiveBase,
    Temperature,
    TowardsFinal,
    WarmupEpochs,
    Weight,
)
from trainables.config.schedules import TemperatureSchedule

LAST_MAP: Final = "last"
"""The name of the feature that is a network's last feature map."""

KdWeight = Annotated[
    FiniteFloat,
    Field(
        ge=0,
        le=1000,
        description="weight of KD's soft targets beside it; 0: none, 1: the benchmark's rows with KD",
    ),
]


class BesideKd(ObjectiveBase):
    """What stands beside an objective's own terms: labels and soft targets, on the weak view."""

    banks: ClassVar[tuple[str, ...]] = ("weak",)
    teacher_banks: ClassVar[tuple[str, ...]] = ("weak",)
    class_weights: ClassVar[tuple[str, ...]] = ("ce_weight", "kd_weight")

    ce_weight: Weight = 1.0
    kd_weight: KdWeight = 0.0
    temperature: Temperature = Field(4.0, description="of KD's soft targets")
    warmup_epochs: WarmupEpochs = 1
    final_temperature: FinalTemperature = 0.0
    temperature_schedule: TowardsFinal = TemperatureSchedule.LINEAR


class OnEmbeddings(BesideKd):
    """What compares what the last linear layers of both networks are given."""

    @property
    def student_features(self) -> tuple[str, ...]:
        """The embedding."""
        return (EMBEDDING,)

    @property
    def teacher_features(self) -> tuple[str, ...]:
        """The embedding."""
        return (EMBEDDING,)
