"""Hyper-parameters of the objective that compares the tokens of transformers."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

from pydantic import Field

from trainables.config.base import FiniteFloat
from trainables.config.objective_base import (
    EMBEDDING,
    Weight,
)
from trainables.config.representation.bases import BesideKd

TOKENS: Final = "tokens"


class TintemLevel(StrEnum):
    """What TinTeM compares."""

    EMBEDDING = "embedding"
    """Embeddings alone, for networks of every kind; inferred, the paper has vision transformers."""
    TOKENS = "tokens"
    """The tokens of two vision transformers, as many each."""


class ImageRow(StrEnum):
    """Which token stands for the whole image."""

    FIRST = "first"
    """The class token."""
    MEAN = "mean"
    """The mean over all tokens, for transformers without a class token; inferred."""


class TintemConfig(BesideKd):
    """TinTeM (2024): the teacher's features, made as narrow as the student's, are what it regresses."""

    keeps_state = True
    paper = "TinTeM / CosPress, TMLR 2025, arXiv 2411.15239"
    teacher_weights = ("kd_weight", "token_weight", "feature_weight", "global_weight", "local_weight")
    structural = ("level",)

    name: Literal["tintem"] = "tintem"
    level: TintemLevel = Field(
        TintemLevel.EMBEDDING, description="embedding (any networks; inferred) or tokens (two transformers)"
    )
    image_row: ImageRow = Field(
        ImageRow.FIRST, description="level tokens: the first is the class token; or their mean (inferred)"
    )
    token_weight: Weight = Field(1.0, description="weight of 1 - cosine of the embedding or image token")
    feature_weight: Weight = Field(1.0, description="level tokens: weight of 1 - cosine of all tokens as one")
    global_weight: Weight = Field(1.0, description="weight, for the head, of the angles between images")
    local_weight: Weight = Field(
        1.0, description="level tokens: weight, for the head, of the angles between the tokens of an image"
    )
    tau_scale: FiniteFloat = Field(
        1.0, gt=0, le=100, description="factor of the ten temperatures 0.01, 0.02 ... 0.10 of the angles"
    )
    ce_weight: Weight = Field(0.0, description="weight of the labels; the paper has none")

    @property
    def student_features(self) -> tuple[str, ...]:
        """What is regressed."""
        return (TOKENS,) if self.level is TintemLevel.TOKENS else (EMBEDDING,)

    @property
    def teacher_features(self) -> tuple[str, ...]:
        """Their counterparts."""
        return self.student_features
