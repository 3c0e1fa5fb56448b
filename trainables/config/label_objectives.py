"""Hyper-parameters of the objectives without a teacher."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from trainables.config.base import FiniteFloat
from trainables.config.objective_base import Need, ObjectiveBase, Weight


class CeConfig(ObjectiveBase):
    """Cross-entropy with the labels alone: the control that every gain is measured against."""

    banks = ("weak",)
    teacher_banks = ()
    paper = "none (control)"

    name: Literal["ce"] = "ce"


class LsConfig(ObjectiveBase):
    """Label smoothing (Szegedy et al., CVPR 2016): part of each label is spread over all classes."""

    banks = ("weak",)
    teacher_banks = ()
    paper = "Szegedy et al., CVPR 2016, arXiv 1512.00567"

    name: Literal["ls"] = "ls"
    smoothing: FiniteFloat = Field(
        0.1, ge=0, le=1, description="part of a label that is spread over all classes"
    )


class ZipfConfig(ObjectiveBase):
    """Zipf's LS (Liang et al., ECCV 2022): other classes by rank among the student's local predictions."""

    banks = ("weak",)
    teacher_banks = ()
    unmixed_banks = ("weak",)
    needs = frozenset({Need.DENSE_LOGITS})
    paper = "Liang et al., ECCV 2022, arXiv 2207.12980"

    name: Literal["zipf"] = "zipf"
    zipf_weight: Weight = Field(0.1, description="weight of the ranked part; Tiny-ImageNet 1")
    power: FiniteFloat = Field(1.0, ge=0, le=10, description="a class of rank r gets a share of 1 / r^power")
    upsample: int = Field(2, ge=1, le=8, description="factor by which the feature map is enlarged first")
    correct_only: bool = Field(False, description="rank only where the student is right")


class Growth(StrEnum):
    """How the trust of PS-KD grows with the epochs."""

    LINEAR = "linear"
    COSINE = "cosine"


class PskdConfig(ObjectiveBase):
    """PS-KD (Kim et al., ICCV 2021): labels softened by the student's own answers of the epoch before."""

    banks = ("weak",)
    teacher_banks = ()
    unmixed_banks = ("weak",)
    needs = frozenset({Need.ROWS})
    keeps_state = True
    paper = "Kim et al., ICCV 2021, arXiv 2006.12000"

    name: Literal["pskd"] = "pskd"
    max_trust: FiniteFloat = Field(0.8, ge=0, le=1, description="share of the own answer in the last epoch")
    growth: Growth = Field(Growth.LINEAR, description="of that share: linear, or cosine (inferred)")
    half: bool = Field(False, description="keep the answers as fp16: N x C numbers take half the memory")
