"""Hyper-parameters of the objectives that compare how samples, or places in an image, relate."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, field_validator

from trainables.config.base import FiniteFloat
from trainables.config.objective_base import (
    EMBEDDING,
    Weight,
)
from trainables.config.representation.bases import LAST_MAP, BesideKd, OnEmbeddings

# These weights are large because the means that they weigh are of many small numbers.
LargeWeight = Annotated[FiniteFloat, Field(ge=0, le=1_000_000)]


class Compared(StrEnum):
    """Which feature of a sample SP takes."""

    EMBEDDING = "embedding"
    MAP = "map"


class SpConfig(BesideKd):
    """SP (Tung and Mori, ICCV 2019): which samples of a batch resemble each other, as the teacher has it."""

    paper = "Tung and Mori, ICCV 2019, arXiv 1907.09682"
    teacher_weights = ("sp_weight", "kd_weight")
    structural = ("level",)

    name: Literal["sp"] = "sp"
    sp_weight: LargeWeight = Field(3000.0, description="weight of the resemblances; the mean is over B^2")
    level: Compared = Field(
        Compared.EMBEDDING,
        description="embedding (inferred: a cache serves it) or map (the paper's: the last feature map)",
    )

    @property
    def student_features(self) -> tuple[str, ...]:
        """The embedding, or the last map."""
        return (EMBEDDING if self.level is Compared.EMBEDDING else LAST_MAP,)

    @property
    def teacher_features(self) -> tuple[str, ...]:
        """The same of the teacher."""
        return self.student_features


class RkdConfig(OnEmbeddings):
    """RKD (Park et al., CVPR 2019): distances and angles between the embeddings of a batch."""

    paper = "Park et al., CVPR 2019, arXiv 1904.05068"
    teacher_weights = ("distance_weight", "angle_weight", "kd_weight")

    name: Literal["rkd"] = "rkd"
    distance_weight: Weight = Field(25.0, description="weight of the distances of pairs")
    angle_weight: Weight = Field(50.0, description="weight of the angles of triplets; 0: not computed")


class PktConfig(OnEmbeddings):
    """PKT (Passalis and Tefas, ECCV 2018): how probable each sample is as another one's neighbour."""

    paper = "Passalis and Tefas, ECCV 2018, arXiv 1803.10837"
    teacher_weights = ("pkt_weight", "kd_weight")

    name: Literal["pkt"] = "pkt"
    pkt_weight: LargeWeight = Field(30_000.0, description="weight of the divergence, a mean over B^2")


class AtForm(StrEnum):
    """How AT measures the distance of two attention maps."""

    BENCHMARK = "benchmark"
    NORM = "norm"


class AtConfig(BesideKd):
    """AT (Zagoruyko and Komodakis, ICLR 2017): where in the image the maps of each stage are large."""

    paper = "Zagoruyko and Komodakis, ICLR 2017, arXiv 1612.03928"
    teacher_weights = ("at_weight", "kd_weight")
    structural = ("stages",)

    name: Literal["at"] = "at"
    at_weight: LargeWeight = Field(
        1000.0, description="weight of the sum over stages; form norm: the paper's beta, which is halved"
    )
    form: AtForm = Field(
        AtForm.BENCHMARK, description="benchmark (mean of squared differences) or norm (the paper's length)"
    )
    stages: str = Field(
        "1,2,3",
        pattern=r"^[1-9][0-9]?(,[1-9][0-9]?)*$",
        description="numbers of the stages that both networks have, ascending, such as 1,2,3 or 3,4",
    )

    @field_validator("stages")
    @classmethod
    def _ascending(cls, stages: str) -> str:
        numbers = [int(number) for number in stages.split(",")]
        if numbers != sorted(set(numbers)):
            raise ValueError(f"stages {stages!r} do not ascend; name each once, such as '1,2,3'")
        return stages

    @property
    def student_features(self) -> tuple[str, ...]:
        """The maps of the stages."""
        return tuple(f"stage{number}" for number in self.stages.split(","))

    @property
    def teacher_features(self) -> tuple[str, ...]:
        """The energies of the stages: small enough for a cache."""
        return tuple(f"energy.stage{number}" for number in self.stages.split(","))
