"""Hyper-parameters of the objectives that regress the teacher's embedding, or use its classifier."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from trainables.config.base import FiniteFloat
from trainables.config.objective_base import (
    EMBEDDING,
    OR,
    Need,
    Temperature,
    Weight,
)
from trainables.config.representation.bases import LAST_MAP, BesideKd, OnEmbeddings


class SimregConfig(OnEmbeddings):
    """SimReg (Navaneet et al., BMVC 2021): an MLP makes the teacher's embedding of the student's."""

    keeps_state = True
    paper = "Navaneet et al., BMVC 2021, arXiv 2201.05131"
    teacher_weights = ("regression_weight", "kd_weight")
    structural = ("depth", "width_factor")

    name: Literal["simreg"] = "simreg"
    regression_weight: Weight = Field(
        1.0, description="weight of the distance of directions; 1 to 10 with labels"
    )
    ce_weight: Weight = Field(0.0, description="weight of the labels; the paper has none (more is inferred)")
    depth: Literal[1, 2, 4] = Field(4, description="linear layers of the head, which is dropped at the end")
    width_factor: Literal[1, 2, 4] = Field(2, description="width of its hidden layers, times the student's")


class SrdSource(StrEnum):
    """From which of the student's features SRD makes the teacher's embedding."""

    AUTO = "auto"
    """The last feature map where the student has one, else the embedding."""
    MAP = "map"
    """The last feature map: 1x1 convolution, batch norm, activation, then the mean over positions."""
    EMBEDDING = "embedding"
    """What its last linear layer is given: linear layer, batch norm, activation (inferred)."""


class Activation(StrEnum):
    """What ends the layers that make the teacher's embedding."""

    RELU = "relu"
    NONE = "none"
    """For teachers whose embedding has negative numbers."""


class SrdConfig(BesideKd):
    """SRD (Yang et al., IJCV 2024): the student's features judged by the teacher's own classifier."""

    needs = frozenset({Need.TEACHER_CLASSIFIER, Need.UNSHIFTED, Need.ALL_CLASSES})
    keeps_state = True
    paper = "Yang et al., IJCV 2024, arXiv 2205.06701"
    teacher_weights = ("alpha", "beta", "kd_weight")
    structural = ("level",)

    name: Literal["srd"] = "srd"
    alpha: Weight = Field(1.0, description="weight of the squared distance of logits")
    beta: Weight = Field(1.0, description="weight of the squared distance of embeddings; ShuffleNetV1 10")
    level: SrdSource = Field(
        SrdSource.AUTO,
        description="the student's last map, or (inferred) its embedding; auto: the map where it has one",
    )
    activation: Activation = Field(
        Activation.RELU, description="relu, or none (inferred) for a teacher with negative embeddings"
    )

    @property
    def student_features(self) -> tuple[str, ...]:
        """The last feature map, the embedding, or the first of these that it has."""
        if self.level is SrdSource.AUTO:
            return (f"{LAST_MAP}{OR}{EMBEDDING}",)
        return (LAST_MAP,) if self.level is SrdSource.MAP else (EMBEDDING,)

    @property
    def teacher_features(self) -> tuple[str, ...]:
        """What its last linear layer is given."""
        return (EMBEDDING,)


class ThkdForm(StrEnum):
    """How TH-KD puts its terms together."""

    PAPER = "paper"
    """Labels and soft targets are shared out between both heads; by how much on CIFAR-100 is not known."""
    RELEASED = "released"
    """Labels for the own head alone; a weight of its own for the teacher's head."""


class EmbeddingDistance(StrEnum):
    """How TH-KD compares embeddings beside the logits."""

    NONE = "none"
    COSINE = "cosine"
    """1 - cosine, mean over samples."""
    KDE = "kde"
    """Squared distance of unit vectors, summed over the samples of a batch, as in the released code."""


class Bridge(StrEnum):
    """Where a linear layer stands between the student's embedding and the teacher's classifier."""

    AUTO = "auto"
    """Where they differ in width."""
    ALWAYS = "always"
    NEVER = "never"
    """Widths that differ are refused, as in the paper."""


class ThkdConfig(BesideKd):
    """TH-KD (Ben-Baruch et al., 2022): the teacher's frozen classifier as a second head of the student."""

    needs = frozenset({Need.TEACHER_CLASSIFIER})
    keeps_state = True
    paper = "Ben-Baruch et al., 2022, arXiv 2201.06945"
    teacher_weights = ("kd_weight", "head_weight", "embedding_weight")
    structural = ("embedding", "bridge")

    name: Literal["thkd"] = "thkd"
    form: ThkdForm = Field(
        ThkdForm.RELEASED, description="that of the released code, whose values are known, or the paper's"
    )
    kd_weight: Weight = Field(
        1.5, description="form released: of the own head; paper: of both heads (the value is inferred)"
    )
    head_weight: Weight = Field(0.02, description="form released: weight of the teacher's head")
    share: FiniteFloat = Field(
        0.3, ge=0, lt=1, description="form paper: share of the teacher's head (the value is inferred)"
    )
    temperature: Temperature = Field(4.0, description="of the soft targets of both heads")
    embedding: EmbeddingDistance = Field(
        EmbeddingDistance.NONE, description="what is added for the embeddings: none, cosine, or kde (a sum)"
    )
    embedding_weight: Weight = Field(1.0, description="weight of that (inferred)")
    bridge: Bridge = Field(
        Bridge.AUTO, description="linear layer before the teacher's head: where widths differ (inferred)"
    )

    @property
    def student_features(self) -> tuple[str, ...]:
        """What its last linear layer is given."""
        return (EMBEDDING,)

    @property
    def teacher_features(self) -> tuple[str, ...]:
        """Its embedding, where a distance to it is added."""
        return () if self.embedding is EmbeddingDistance.NONE else (EMBEDDING,)
