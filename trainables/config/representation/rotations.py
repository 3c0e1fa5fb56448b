"""Hyper-parameters of the objectives that look at four quarter turns of each image."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from trainables.config.base import FiniteFloat
from trainables.config.objective_base import (
    EMBEDDING,
    ROTATED,
    LabelUse,
    Need,
    Preparation,
    Temperature,
    Weight,
)
from trainables.config.representation.bases import BesideKd, OnEmbeddings
from trainables.config.representation.preparation import BRANCH, SS_HEAD

STAGE: Final = "stage"
"""Before the number, from 1, of a stage, whose map it names."""

Ratio = Annotated[FiniteFloat, Field(ge=0, le=1)]
Contrast = Annotated[FiniteFloat, Field(ge=0.005, le=10)]


class MlkdConfig(OnEmbeddings):
    """MLKD (Ding et al., 2020): embeddings of turned images, held to the teacher's on three levels."""

    banks = ROTATED
    teacher_banks = ROTATED
    unmixed_banks = ROTATED
    label_use = LabelUse.TARGET_CLASS
    one_pass = True
    keeps_state = True
    paper = "Ding et al., 2020, arXiv 2012.00573"
    teacher_weights = ("individual_weight", "relation_weight", "category_weight", "kd_weight")
    structural = ("dim", "width_factor")

    name: Literal["mlkd"] = "mlkd"
    ce_weight: Weight = Field(1.0, description="weight of the labels, on upright images")
    individual_weight: Weight = Field(20.0, description="of the embedding's direction; ImageNet 10")
    relation_weight: Weight = Field(50.0, description="of likeness of turned to upright images; ImageNet 20")
    category_weight: Weight = Field(1.0, description="of the contrast between classes; ImageNet 0.5")
    relation_temperature: Temperature = Field(0.5, description="divides the cosines of the relations")
    category_temperature: Contrast = Field(0.07, description="divides the cosines of the contrast")
    dim: int = Field(128, ge=1, le=4096, description="numbers in an embedding of the contrast")
    width_factor: int = Field(
        16, ge=1, le=64, description="width of the hidden layer of the individual head, times the teacher's"
    )

    @property
    def uses_label(self) -> LabelUse:
        """The contrast has images of one class as partners; without its weight no label is looked at."""
        return self.label_use if self.category_weight > 0 else LabelUse.NONE


class SskdConfig(BesideKd):
    """SSKD (Xu et al., ECCV 2020): likeness of turned images to upright ones, and answers to turned ones."""

    banks = ROTATED
    teacher_banks = ROTATED
    unmixed_banks = ROTATED
    needs = frozenset({Need.ALL_CLASSES})
    label_use = LabelUse.TARGET_CLASS
    one_pass = True
    preparation = Preparation.SS_HEAD
    keeps_state = True
    paper = "Xu et al., ECCV 2020, arXiv 2006.07114"
    teacher_weights = ("kd_weight", "tf_weight", "ss_weight")
    class_weights = ("ce_weight", "kd_weight", "tf_weight")

    name: Literal["sskd"] = "sskd"
    ce_weight: Weight = Field(
        0.1, description="weight of the labels, on upright images; others' ImageNet runs 1"
    )
    kd_weight: Weight = Field(0.9, description="weight of the soft targets on upright images")
    tf_weight: Weight = Field(2.7, description="weight of the soft targets on turned images")
    ss_weight: Weight = Field(10.0, description="weight of the likeness of turned to upright images")
    ss_temperature: Temperature = Field(0.5, description="divides the cosines")
    ratio_tf: Ratio = Field(
        1.0, description="of the turned images that the teacher gets wrong, so many count"
    )
    ratio_ss: Ratio = Field(0.75, description="the same of those that it finds most like another image")

    @property
    def needed(self) -> frozenset[Need]:
        """All classes where a part of the wrong answers is left out: their places are told by all logits."""
        return self.needs if self.ratio_tf < 1 else frozenset()

    @property
    def student_features(self) -> tuple[str, ...]:
        """What its last linear layer is given."""
        return (EMBEDDING,)

    @property
    def teacher_features(self) -> tuple[str, ...]:
        """What the head that it was prepared with makes of its embedding."""
        return (SS_HEAD,)

    @property
    def uses_label(self) -> LabelUse:
        """The label says how wrong the teacher is; with a ratio of 1 all its answers count."""
        return self.label_use if self.ratio_tf < 1 else LabelUse.NONE


class HsakdConfig(BesideKd):
    """HSAKD (Yang et al., IJCAI 2021): auxiliary classifiers of class and turn, held to the teacher's."""

    banks = ROTATED
    teacher_banks = ROTATED
    one_pass = True
    preparation = Preparation.BRANCHES
    keeps_state = True
    paper = "Yang et al., IJCAI 2021, arXiv 2107.13715"
    teacher_weights = ("kd_weight", "branch_weight")
    structural = ("stages", "branch_depth")

    name: Literal["hsakd"] = "hsakd"
    ce_weight: Weight = Field(1.0, description="weight of the labels, on upright images")
    kd_weight: Weight = Field(1.0, description="weight of the soft targets, on all turns")
    branch_weight: Weight = Field(1.0, description="weight of the sum over branches")
    temperature: Temperature = Field(3.0, description="of soft targets and branches")
    stages: int = Field(3, ge=1, le=8, description="of each network, with a branch on each; ImageNet 4")
    branch_depth: int = Field(
        1, ge=1, le=8, description="convolutions for each stage of a branch (inferred: see the objective)"
    )

    @property
    def student_features(self) -> tuple[str, ...]:
        """The map after each stage."""
        return tuple(f"{STAGE}{number}" for number in self._numbers)

    @property
    def teacher_features(self) -> tuple[str, ...]:
        """The joint logits of each branch that it was prepared with."""
        return tuple(f"{BRANCH}{number}" for number in self._numbers)

    @property
    def _numbers(self) -> range:
        return range(1, self.stages + 1)
