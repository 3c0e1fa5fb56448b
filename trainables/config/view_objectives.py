"""Hyper-parameters of the objectives that compare logits on a weak and a strong view."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from trainables.config.base import FiniteFloat
from trainables.config.objective_base import (
    FinalTemperature,
    LabelUse,
    Need,
    ObjectiveBase,
    Standardise,
    Temperature,
    Threshold,
    TowardsFinal,
    WarmupEpochs,
    Weight,
)
from trainables.config.schedules import TemperatureSchedule


class Gate(StrEnum):
    """Which view's confidence gates a term of CRLD."""

    RELEASED = "released"
    OWN_VIEW = "own_view"


class CrldBase(StrEnum):
    """The loss by which CRLD compares student and teacher."""

    KD = "kd"
    DKD = "dkd"
    DIST = "dist"
    MLLD = "mlld"


class CrldConfig(ObjectiveBase):
    """CRLD (Zhang et al., ACM MM 2024): within- and cross-view consistency, gated by confidence."""

    banks = ("weak", "strong")
    teacher_banks = ("weak", "strong")
    unmixed_banks = ("weak", "strong")
    label_use = LabelUse.TARGET_CLASS
    needs = frozenset({Need.ALL_CLASSES})
    paper = "Zhang et al., ACM MM 2024, arXiv 2412.16493"
    teacher_weights = ("within_weight", "cross_weight")

    name: Literal["crld"] = "crld"
    temperature: Temperature = 4.0
    ce_weight: Weight = 1.0
    within_weight: Weight = 2.0
    cross_weight: Weight = 0.5
    weak_threshold: Threshold = Field(0.9, description="least teacher confidence (T = 1) on the weak view")
    strong_threshold: Threshold = Field(
        0.2, description="least teacher confidence (T = 1) on the strong view"
    )
    gate: Gate = Field(Gate.RELEASED, description="released code, or each term by its own view (inferred)")
    base: CrldBase = Field(CrldBase.KD, description="loss of the within- and cross-view terms")
    alpha: Weight = Field(1.0, description="base dkd: weight of the target-class part")
    beta: Weight = Field(8.0, description="base dkd: weight of the non-target part")
    standardise: Standardise = False
    warmup_epochs: WarmupEpochs = 1
    final_temperature: FinalTemperature = 0.0
    temperature_schedule: TowardsFinal = TemperatureSchedule.LINEAR

    @property
    def needed(self) -> frozenset[Need]:
        """All classes, unless the terms are plain KD."""
        return self.needs if self.standardise or self.base is not CrldBase.KD else frozenset()

    @property
    def uses_label(self) -> LabelUse:
        """The label's class with DKD."""
        return self.label_use if self.base is CrldBase.DKD else LabelUse.NONE


class MlldMask(StrEnum):
    """How MLLD's masks of samples and classes act."""

    RELEASED = "released"
    PER_SAMPLE = "per_sample"


class MlldTemperatures(StrEnum):
    """Temperatures at which MLLD compares; `temperature` is the middle one."""

    FIVE = "five"
    """2, 3, `temperature`, 5, 6: the released set."""
    THREE = "three"
    """3, `temperature`, 5."""
    ONE = "one"
    """`temperature` alone."""


class MlldConfig(ObjectiveBase):
    """MLLD (Jin et al., CVPR 2023): instances, batch and classes compared at several temperatures."""

    banks = ("weak", "strong")
    teacher_banks = ("weak", "strong")
    needs = frozenset({Need.ALL_CLASSES})
    paper = "Jin et al., CVPR 2023"
    teacher_weights = ("kd_weight",)

    name: Literal["mlld"] = "mlld"
    temperature: Temperature = Field(4.0, description="the middle one of the temperatures; ImageNet 1")
    temperatures: MlldTemperatures = Field(
        MlldTemperatures.FIVE, description="five (2, 3, temperature, 5, 6), three (without 2 and 6), or one"
    )
    ce_weight: Weight = 0.1
    kd_weight: Weight = Field(0.9, description="weight of all that is compared with the teacher")
    mask: MlldMask = Field(
        MlldMask.RELEASED,
        description="released: the kept fraction scales a term; per_sample: the paper's intent (inferred)",
    )
    mask_percentile: FiniteFloat = Field(
        50.0, ge=0, le=100, description="samples and classes up to this percentile of confidence are kept"
    )
    standardise: Standardise = False
    warmup_epochs: WarmupEpochs = 1
    final_temperature: FinalTemperature = 0.0
    temperature_schedule: TowardsFinal = TemperatureSchedule.LINEAR
