"""Hyper-parameters of the objectives that compare feature maps: FitNet, ReviewKD, TaT."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from trainables.config.objective_base import (
    EMBEDDING,
    PRE,
    Epochs,
    Temperature,
    Weight,
)
from trainables.config.representation.bases import LAST_MAP, BesideKd, KdWeight


class TeacherMaps(StrEnum):
    """Which of a stage's two maps the teacher's is."""

    POST = "post"
    """Behind the stage's last activation."""
    PRE = "pre"
    """Before it: its numbers have a sign."""


class Orientation(StrEnum):
    """Over whose positions TaT's attention is a distribution."""

    TEACHER_ROW = "teacher_row"
    """A row for each of the teacher's positions, over the student's: the paper's text."""
    STUDENT_ROW = "student_row"
    """A row for each of the student's positions, over the teacher's: the authors' code."""


class Theta(StrEnum):
    """What TaT's key is made of the teacher's map by."""

    IDENTITY = "identity"
    CONV = "conv"


class UnequalMaps(StrEnum):
    """What becomes of two maps of unequal height or width."""

    REFUSE = "refuse"
    POOL = "pool"


class FitnetConfig(BesideKd):
    """FitNet (Romero et al., ICLR 2015): a feature map of a middle stage, regressed to the teacher's."""

    keeps_state = True
    paper = "Romero et al., ICLR 2015, arXiv 1412.6550"
    teacher_weights = ("hint_weight", "kd_weight")
    structural = ("hint", "teacher_maps")

    name: Literal["fitnet"] = "fitnet"
    hint_weight: Weight = Field(100.0, description="weight of the hint; the benchmark's 100")
    hint: str = Field(
        "stage2",
        pattern="^(stage[1-9]|embedding)$",
        description="the stage whose maps are compared, or embedding: a linear layer to the teacher's",
    )
    teacher_maps: TeacherMaps = Field(
        TeacherMaps.POST, description="post, or pre, the last activation of the teacher's stage"
    )
    relu: bool = Field(
        True, description="the regressor ends in a ReLU; false, and so with pre, for signed targets"
    )
    hint_epochs: int = Field(
        0,
        ge=0,
        le=10_000,
        description="the paper's two steps: first so many epochs the hint alone, then none",
    )

    @model_validator(mode="before")
    @classmethod
    def _no_relu_towards_signed_maps(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("teacher_maps") == TeacherMaps.PRE:
            return {"relu": False, **data}
        return data

    @property
    def student_features(self) -> tuple[str, ...]:
        """The map of the hint's stage, or the embedding."""
        return (self.hint,)

    @property
    def teacher_features(self) -> tuple[str, ...]:
        """The same of the teacher, before the last activation where that is asked for."""
        return tuple(map_of_teacher(name, self.teacher_maps) for name in self.student_features)

    def at(self, epoch: int, epochs: int | None) -> Self:
        """These hyper-parameters in an epoch: with `hint_epochs` the hint alone first, and none after."""
        now = super().at(epoch, epochs)
        if not self.hint_epochs:
            return now
        silent = ("ce_weight", "kd_weight") if epoch <= self.hint_epochs else ("hint_weight",)
        return now.model_copy(update=dict.fromkeys(silent, 0.0))


class ReviewkdConfig(BesideKd):
    """ReviewKD (Chen et al., CVPR 2021): deep features review shallow ones; each is held to the teacher's."""

    keeps_state = True
    paper = "Chen et al., CVPR 2021, arXiv 2104.09044"
    teacher_weights = ("review_weight", "kd_weight")
    structural = ("levels", "teacher_maps")

    name: Literal["reviewkd"] = "reviewkd"
    review_weight: Weight = Field(5.0, description="weight of all levels; the paper's 0.6 to 8 by pair")
    levels: int = Field(
        4, ge=2, le=9, description="the embedding, and so many stages less one, from stage1 on"
    )
    teacher_maps: TeacherMaps = Field(
        TeacherMaps.PRE, description="pre, or post, the last activation of the teacher's stages"
    )
    warmup_epochs: Epochs = Field(20, description="epochs of linear warm-up of the levels, and of KD's part")

    @property
    def student_features(self) -> tuple[str, ...]:
        """The maps of the stages, shallowest first, and the embedding."""
        return (*(f"stage{number}" for number in range(1, self.levels)), EMBEDDING)

    @property
    def teacher_features(self) -> tuple[str, ...]:
        """The same of the teacher, before the last activation where that is asked for."""
        return tuple(map_of_teacher(name, self.teacher_maps) for name in self.student_features)


class TatConfig(BesideKd):
    """TaT (Lin et al., CVPR 2022): each position of the teacher's last map, out of all of the student's."""

    keeps_state = True
    paper = "Lin et al., CVPR 2022, arXiv 2205.10793"
    teacher_weights = ("tat_weight", "kd_weight")
    structural = ("theta",)

    name: Literal["tat"] = "tat"
    ce_weight: Weight = Field(0.1, description="the paper's alpha; 0.5 in its other release")
    tat_weight: Weight = Field(0.2, description="the paper's epsilon; 0.1 in its other release")
    orientation: Orientation = Field(
        Orientation.STUDENT_ROW,
        description="student_row as in the authors' code, or teacher_row as in the text",
    )
    theta: Theta = Field(
        Theta.IDENTITY, description="of the teacher's map: identity, or conv (and batch norm)"
    )
    unequal_maps: UnequalMaps = Field(
        UnequalMaps.REFUSE, description="refuse, or pool: the larger map is averaged to the smaller's size"
    )
    kd_weight: KdWeight = Field(0.0, description="the paper's beta: Hinton's soft targets; 0.5 in a release")
    temperature: Temperature = Field(1.0, description="of the soft targets; the paper's 1")

    @property
    def student_features(self) -> tuple[str, ...]:
        """The last map."""
        return (LAST_MAP,)

    @property
    def teacher_features(self) -> tuple[str, ...]:
        """The last map."""
        return (LAST_MAP,)


def map_of_teacher(stage: str, maps: TeacherMaps) -> str:
    """The name of the teacher's feature of a stage; an embedding has only one."""
    return stage if maps is TeacherMaps.POST or stage == EMBEDDING else f"{stage}{PRE}"
