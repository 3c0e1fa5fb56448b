"""What a finished teacher is prepared with, and how that is trained; none of it is listed as an objective."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Literal

from pydantic import Field

from trainables.config.base import Config
from trainables.config.objective_base import ROTATED, ObjectiveBase, Preparation
from trainables.config.training import ScheduleName, TrainingConfig

SS_HEAD: Final = "ss_head"
"""The name of what SSKD's head makes of a prepared teacher's embedding."""
BRANCH: Final = "branch"
"""Before the number, from 1, of an auxiliary classifier of HSAKD's prepared teacher."""
BRANCH_DEPTH: Final = 2
"""Convolutions for each stage of a branch."""

RECIPES: Final[Mapping[Preparation, TrainingConfig]] = MappingProxyType(
    {
        Preparation.SS_HEAD: TrainingConfig(
            epochs=60, lr=0.05, schedule=ScheduleName.STEP, milestones=(30, 45)
        ),
        Preparation.BRANCHES: TrainingConfig(
            epochs=100, lr=0.05, schedule=ScheduleName.STEP, milestones=(30, 60, 90)
        ),
    }
)
"""The papers' own: SSKD's for its head, HSAKD's for branches on a teacher that stays as it is."""


def makes(kind: Preparation, feature: str) -> bool:
    """Whether a teacher that is prepared so has a feature, by name, from that."""
    if kind is Preparation.SS_HEAD:
        return feature == SS_HEAD
    return re.fullmatch(rf"{BRANCH}[0-9]+", feature) is not None


class PreparedTraining(StrEnum):
    """How a teacher is trained here, where that is not by the labels alone; it is another teacher then."""

    JOINT_BRANCHES = "joint_branches"
    """HSAKD's Teacher*: together with classifiers of class and turn on its stages."""
    STUDENT_CLASSIFIER = "student_classifier"
    """SH-KD's: with the classifier of a student, trained before it, in place of its own, and frozen."""


class PreparedPart(Config):
    """What a finished teacher was prepared with, as whoever asks it loads it, on any node."""

    kind: Preparation
    weights: str = Field(description="file with its weights, on every node")
    sha256: str = Field(description="of its kind, and of its weights and their shapes")
    branch_depth: int = Field(BRANCH_DEPTH, ge=1, description="of kind branches")

    def gives(self, feature: str) -> bool:
        """Whether it makes a feature of the teacher, by name."""
        return makes(self.kind, feature)


class PrepareHeadConfig(ObjectiveBase):
    """SSKD's first stage: a head on the teacher's embedding learns which image a turned one is."""

    banks = ROTATED
    teacher_banks = ()
    unmixed_banks = ROTATED
    one_pass = True
    paper = "Xu et al., ECCV 2020, arXiv 2006.07114"

    name: Literal["prepare_ss_head"] = "prepare_ss_head"

    @property
    def student_features(self) -> tuple[str, ...]:
        """What the head makes of the embedding."""
        return (SS_HEAD,)


class PrepareBranchesConfig(ObjectiveBase):
    """HSAKD's first stage: classifiers of class and turn on the teacher's stages learn their joint labels."""

    banks = ROTATED
    teacher_banks = ()
    unmixed_banks = ROTATED
    one_pass = True
    paper = "Yang et al., IJCAI 2021, arXiv 2107.13715"

    name: Literal["prepare_branches"] = "prepare_branches"
    branches: int = Field(ge=1, description="one for each stage")
    joint: bool = Field(
        False, description="whether the network learns with them, from labels of upright images"
    )

    @property
    def student_features(self) -> tuple[str, ...]:
        """The joint logits of each branch."""
        return tuple(f"{BRANCH}{number}" for number in range(1, self.branches + 1))
