"""Hyper-parameters of the objectives about what a student is given: fewer pixels, or one more token."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from trainables.config.objective_base import (
    Need,
    Temperature,
    Weight,
)
from trainables.config.representation.bases import LAST_MAP, BesideKd

FIRST_CONV: Final = "first_conv"
CLASS_LOGITS: Final = "class_logits"
DISTILLATION_LOGITS: Final = "distillation_logits"


class PixelConfig(BesideKd):
    """Pixel Distillation (Guo et al., 2021): fewer pixels for the student, which draws them again."""

    needs = frozenset({Need.IMAGES})
    keeps_state = True
    paper = "Guo et al., TPAMI 2024, arXiv 2112.09532"
    teacher_weights = ("kd_weight", "feature_weight")
    structural_at_zero = ("eta", "feature_weight")

    name: Literal["pixel"] = "pixel"
    ce_weight: Weight = Field(0.1, description="the paper's 1 - a")
    kd_weight: Weight = Field(0.9, description="the paper's a")
    eta: Weight = Field(50.0, description="weight of the drawn image; 10 or 20 on other data of the paper")
    feature_weight: Weight = Field(
        0.0, description="weight of the last feature maps, for an assistant as teacher: of as many channels"
    )

    @property
    def needed(self) -> frozenset[Need]:
        """The images where they are drawn."""
        return self.needs if self.eta > 0 else frozenset()

    @property
    def student_features(self) -> tuple[str, ...]:
        """What its first convolution gives, and its last feature map, where they are weighed."""
        drawn = (FIRST_CONV,) if self.eta > 0 else ()
        return (*drawn, LAST_MAP) if self.feature_weight > 0 else drawn

    @property
    def teacher_features(self) -> tuple[str, ...]:
        """Its last feature map where that is weighed."""
        return (LAST_MAP,) if self.feature_weight > 0 else ()


class DistillationForm(StrEnum):
    """What DeiT's distillation head is taught."""

    HARD = "hard"
    """The teacher's most probable class."""
    SOFT = "soft"
    """The teacher's softened probabilities."""


_SOFT: Final = {"ce_weight": 0.9, "distillation_weight": 0.1}


class DeitConfig(BesideKd):
    """DeiT (Touvron et al., ICML 2021): one token of a vision transformer learns from the teacher alone."""

    paper = "Touvron et al., ICML 2021, arXiv 2012.12877"
    teacher_weights = ("distillation_weight", "kd_weight")
    class_weights = ("ce_weight", "distillation_weight", "kd_weight")

    name: Literal["deit"] = "deit"
    form: DistillationForm = Field(
        DistillationForm.HARD, description="the teacher's most probable class, or its soft targets"
    )
    ce_weight: Weight = Field(0.5, description="form soft: 0.9 where it is not given, the paper's 1 - lambda")
    distillation_weight: Weight = Field(
        0.5, description="form soft: 0.1 where it is not given, the paper's lambda"
    )
    temperature: Temperature = Field(3.0, description="of the soft targets: form soft, and kd_weight")
    kd_weight: Weight = Field(0.0, description="of soft targets for the mean of both heads; not in the paper")

    @model_validator(mode="before")
    @classmethod
    def _weights_of_the_form(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("form") == DistillationForm.SOFT:
            return {**_SOFT, **data}
        return data

    @property
    def student_features(self) -> tuple[str, ...]:
        """The logits of both its heads."""
        return (CLASS_LOGITS, DISTILLATION_LOGITS)
