"""Hyper-parameters of the objectives that compare logits on one view."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, model_validator

from trainables.config.base import FiniteFloat
from trainables.config.objective_base import (
    Epochs,
    FinalTemperature,
    LabelUse,
    Need,
    ObjectiveBase,
    Standardise,
    Temperature,
    TowardsFinal,
    WarmupEpochs,
    Weight,
)
from trainables.config.schedules import TemperatureSchedule


class KdConfig(ObjectiveBase):
    """Soft targets (Hinton et al., 2015): ce_weight·CE + kd_weight·T²·KL(teacher ‖ student)."""

    banks = ("weak",)
    teacher_banks = ("weak",)
    needs = frozenset({Need.ALL_CLASSES})
    paper = "Hinton et al., 2015, arXiv 1503.02531"
    teacher_weights = ("kd_weight",)

    name: Literal["kd"] = "kd"
    temperature: Temperature = 4.0
    ce_weight: Weight = 0.1
    kd_weight: Weight = 0.9
    standardise: Standardise = False
    warmup_epochs: WarmupEpochs = 1
    final_temperature: FinalTemperature = 0.0
    temperature_schedule: TowardsFinal = TemperatureSchedule.LINEAR

    @property
    def needed(self) -> frozenset[Need]:
        """All classes where logits are standardised: their deviation is over all of them."""
        return self.needs if self.standardise else frozenset()


class DkdConfig(ObjectiveBase):
    """Decoupled KD (Zhao et al., CVPR 2022): target and non-target parts weighted apart."""

    banks = ("weak",)
    teacher_banks = ("weak",)
    unmixed_banks = ("weak",)
    needs = frozenset({Need.ALL_CLASSES})
    label_use = LabelUse.TARGET_CLASS
    paper = "Zhao et al., CVPR 2022, arXiv 2203.08679"
    teacher_weights = ("alpha", "beta")

    name: Literal["dkd"] = "dkd"
    temperature: Temperature = 4.0
    ce_weight: Weight = 1.0
    alpha: Weight = Field(1.0, description="weight of the target-class part")
    beta: Weight = Field(8.0, description="weight of the non-target part")
    warmup_epochs: Epochs = Field(20, description="epochs of linear warm-up of the KD part")
    standardise: Standardise = False
    final_temperature: FinalTemperature = 0.0
    temperature_schedule: TowardsFinal = TemperatureSchedule.LINEAR


class DistConfig(ObjectiveBase):
    """DIST (Huang et al., NeurIPS 2022): correlation with the teacher, by sample and by class."""

    banks = ("weak",)
    teacher_banks = ("weak",)
    needs = frozenset({Need.ALL_CLASSES})
    paper = "Huang et al., NeurIPS 2022, arXiv 2205.10536"
    teacher_weights = ("dist_weight",)

    name: Literal["dist"] = "dist"
    temperature: Temperature = Field(4.0, description="softens both distributions; the paper's 4, ImageNet 1")
    ce_weight: Weight = 1.0
    dist_weight: Weight = Field(2.0, description="weight of both correlations")
    beta: Weight = Field(1.0, description="weight of the correlation of each sample over classes")
    gamma: Weight = Field(1.0, description="weight of the correlation of each class over the batch")
    warmup_epochs: WarmupEpochs = 1
    final_temperature: FinalTemperature = 0.0
    temperature_schedule: TowardsFinal = TemperatureSchedule.LINEAR


class CkdConfig(ObjectiveBase):
    """CKD (Zhu et al., 2024): in a batch, the teacher's answer to a sample is to find the student's."""

    banks = ("weak",)
    teacher_banks = ("weak",)
    needs = frozenset({Need.ALL_CLASSES, Need.UNSHIFTED})
    paper = "Zhu et al., 2024, arXiv 2404.14109"
    teacher_weights = ("contrast_weight",)

    name: Literal["ckd"] = "ckd"
    temperature: Temperature = Field(1.0, description="divides the cosines of the contrast")
    ce_weight: Weight = 1.0
    contrast_weight: Weight = Field(100.0, description="weight of the contrast; ImageNet 10")
    warmup_epochs: WarmupEpochs = 1
    final_temperature: FinalTemperature = 0.0
    temperature_schedule: TowardsFinal = TemperatureSchedule.LINEAR


class Covariance(StrEnum):
    """Whose covariance CLKD compares."""

    CLASS = "class"
    SAMPLE = "sample"


class ClkdConfig(ObjectiveBase):
    """CLKD (Zhang et al., 2022): logits compared by sample, by class, and in their covariance."""

    banks = ("weak",)
    teacher_banks = ("weak",)
    needs = frozenset({Need.ALL_CLASSES, Need.UNSHIFTED})
    paper = "Zhang et al., 2022, arXiv 2211.14773"
    teacher_weights = ("logit_weight", "covariance_weight")

    name: Literal["clkd"] = "clkd"
    ce_weight: Weight = 0.1
    logit_weight: Weight = Field(0.5, description="weight of the parts by sample and by class")
    beta: Weight = Field(2.0, description="weight of the part by class in them")
    covariance_weight: Weight = 0.4
    covariance: Covariance = Field(
        Covariance.CLASS, description="class (over the batch) or sample (over the classes); both are inferred"
    )
    warmup_epochs: WarmupEpochs = 1


class AektForm(StrEnum):
    """Which form of AEKT is meant: the published formula was not available."""

    RECONSTRUCTION = "reconstruction"


class AektConfig(ObjectiveBase):
    """AEKT (Park and Lee, 2024), reconstructed: DKD whose target part is weighted by teacher over student."""

    banks = ("weak",)
    teacher_banks = ("weak",)
    unmixed_banks = ("weak",)
    needs = frozenset({Need.ALL_CLASSES})
    label_use = LabelUse.TARGET_CLASS
    paper = "Park and Lee, 2024, arXiv 2409.01679 (reconstruction)"
    teacher_weights = ("alpha", "beta")

    name: Literal["aekt"] = "aekt"
    form: AektForm = Field(
        AektForm.RECONSTRUCTION, description="the only one: inferred, not the paper's loss"
    )
    temperature: Temperature = 4.0
    ce_weight: Weight = 1.0
    alpha: Weight = Field(1.0, description="weight of the target-class part")
    beta: Weight = Field(8.0, description="weight of the non-target part")
    max_ratio: FiniteFloat = Field(
        5.0, ge=1, le=1000, description="largest ratio of the teacher's to the student's target probability"
    )
    warmup_epochs: WarmupEpochs = 1
    final_temperature: FinalTemperature = 0.0
    temperature_schedule: TowardsFinal = TemperatureSchedule.LINEAR


class CtkdBase(StrEnum):
    """The loss whose temperature CTKD learns."""

    KD = "kd"
    DKD = "dkd"


class CtkdConfig(ObjectiveBase):
    """CTKD (Li et al., AAAI 2023): the temperature is learned, against the student, ever more strongly."""

    banks = ("weak",)
    teacher_banks = ("weak",)
    unmixed_banks = ("weak",)
    needs = frozenset({Need.ALL_CLASSES})
    label_use = LabelUse.TARGET_CLASS
    keeps_state = True
    paper = "Li et al., AAAI 2023, arXiv 2211.16231"
    teacher_weights = ("kd_weight",)

    name: Literal["ctkd"] = "ctkd"
    ce_weight: Weight = Field(0.1, description="base dkd: 1 where it is not given, as the authors have it")
    kd_weight: Weight = Field(0.9, description="weight of what base says; base dkd: 1, likewise")
    base: CtkdBase = Field(CtkdBase.KD, description="kd or dkd, at the learned temperature")
    alpha: Weight = Field(1.0, description="base dkd: weight of the target-class part")
    beta: Weight = Field(2.0, description="base dkd: weight of the non-target part")
    least_temperature: Temperature = Field(1.0, description="the temperature lies above it")
    temperature_range: Temperature = Field(20.0, description="and at most so much above it")
    curriculum_epochs: Epochs = Field(10, description="epochs in which the reversal reaches its strength")
    reversal: FiniteFloat = Field(
        1.0, ge=0, le=100, description="strength of the gradient against the student"
    )
    warmup_epochs: WarmupEpochs = 1

    @model_validator(mode="before")
    @classmethod
    def _weights_of_the_base(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("base") == CtkdBase.DKD:
            return {"ce_weight": 1.0, "kd_weight": 1.0, **data}
        return data

    @property
    def needed(self) -> frozenset[Need]:
        """All classes with DKD."""
        return self.needs if self.base is CtkdBase.DKD else frozenset()

    @property
    def uses_label(self) -> LabelUse:
        """The label's class with DKD."""
        return self.label_use if self.base is CtkdBase.DKD else LabelUse.NONE
