"""Hyper-parameters of the objectives that compare logits on one view."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainables.config.objective_base import Epochs, Need, ObjectiveBase, Standardise, Temperature, Weight


class KdConfig(ObjectiveBase):
    """Soft targets (Hinton et al., 2015): ce_weight·CE + kd_weight·T²·KL(teacher ‖ student)."""

    banks = ("weak",)
    teacher_banks = ("weak",)
    needs = frozenset({Need.ALL_CLASSES})
    paper = "Hinton et al., 2015, arXiv 1503.02531"

    name: Literal["kd"] = "kd"
    temperature: Temperature = 4.0
    ce_weight: Weight = 0.1
    kd_weight: Weight = 0.9
    standardise: Standardise = False

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
    paper = "Zhao et al., CVPR 2022, arXiv 2203.08679"

    name: Literal["dkd"] = "dkd"
    temperature: Temperature = 4.0
    ce_weight: Weight = 1.0
    alpha: Weight = Field(1.0, description="weight of the target-class part")
    beta: Weight = Field(8.0, description="weight of the non-target part")
    warmup_epochs: Epochs = Field(20, description="epochs of linear warm-up of the KD part")
    standardise: Standardise = False


class DistConfig(ObjectiveBase):
    """DIST (Huang et al., NeurIPS 2022): correlation with the teacher, by sample and by class."""

    banks = ("weak",)
    teacher_banks = ("weak",)
    needs = frozenset({Need.ALL_CLASSES})
    paper = "Huang et al., NeurIPS 2022, arXiv 2205.10536"

    name: Literal["dist"] = "dist"
    temperature: Temperature = Field(4.0, description="softens both distributions; the paper's 4, ImageNet 1")
    ce_weight: Weight = 1.0
    dist_weight: Weight = Field(2.0, description="weight of both correlations")
    beta: Weight = Field(1.0, description="weight of the correlation of each sample over classes")
    gamma: Weight = Field(1.0, description="weight of the correlation of each class over the batch")
