"""Hyper-parameters of every objective: bounds and its paper's defaults. The maths: trainables/objectives."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from trainables.config.base import Config, FiniteFloat

Temperature = Annotated[FiniteFloat, Field(gt=0, le=100)]
Weight = Annotated[FiniteFloat, Field(ge=0, le=1000)]
Threshold = Annotated[FiniteFloat, Field(ge=0, le=1)]


class ObjectiveBase(Config):
    """What every objective states beside its hyper-parameters."""

    banks: ClassVar[
        tuple[str, ...]
    ]  # views that the student sees, in order; the first is the one for accuracy
    teacher_banks: ClassVar[tuple[str, ...]]  # banks whose teacher logits are needed
    paper: ClassVar[str]


class CeConfig(ObjectiveBase):
    """Cross-entropy with the labels alone: the control that every gain is measured against."""

    banks = ("weak",)
    teacher_banks = ()
    paper = "none (control)"

    name: Literal["ce"] = "ce"


class KdConfig(ObjectiveBase):
    """Soft targets (Hinton et al., 2015): ce_weight·CE + kd_weight·T²·KL(teacher ‖ student)."""

    banks = ("weak",)
    teacher_banks = ("weak",)
    paper = "Hinton et al., 2015, arXiv 1503.02531"

    name: Literal["kd"] = "kd"
    temperature: Temperature = 4.0
    ce_weight: Weight = 0.1
    kd_weight: Weight = 0.9


class DkdConfig(ObjectiveBase):
    """Decoupled KD (Zhao et al., CVPR 2022): target and non-target parts weighted apart."""

    banks = ("weak",)
    teacher_banks = ("weak",)
    paper = "Zhao et al., CVPR 2022, arXiv 2203.08679"

    name: Literal["dkd"] = "dkd"
    temperature: Temperature = 4.0
    ce_weight: Weight = 1.0
    alpha: Weight = Field(1.0, description="weight of the target-class part")
    beta: Weight = Field(8.0, description="weight of the non-target part")
    warmup_epochs: int = Field(20, ge=1, le=10_000, description="epochs of linear warm-up of the KD part")


class Gate(StrEnum):
    """Which view's confidence gates a term of CRLD."""

    RELEASED = "released"
    OWN_VIEW = "own_view"


class CrldConfig(ObjectiveBase):
    """CRLD (Zhang et al., ACM MM 2024): within- and cross-view consistency, gated by confidence."""

    banks = ("weak", "strong")
    teacher_banks = ("weak", "strong")
    paper = "Zhang et al., ACM MM 2024, arXiv 2412.16493"

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


ObjectiveConfig = Annotated[CeConfig | KdConfig | DkdConfig | CrldConfig, Field(discriminator="name")]

OBJECTIVE_CONFIGS: Final[Mapping[str, type[ObjectiveBase]]] = MappingProxyType(
    {"ce": CeConfig, "kd": KdConfig, "dkd": DkdConfig, "crld": CrldConfig}
)
