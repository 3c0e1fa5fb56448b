"""Hyper-parameters of the objectives that compare embeddings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainables.config.base import FiniteFloat
from trainables.config.objective_base import EMBEDDING, Need, ObjectiveBase, WarmupEpochs, Weight


class CbdConfig(ObjectiveBase):
    """CBD (Iscen et al., BMVC 2021): for long tails; cosine classifier, embedding held to the teacher's."""

    banks = ("weak",)
    teacher_banks = ("weak",)
    needs = frozenset({Need.COSINE_HEAD})
    paper = "Iscen et al., BMVC 2021, arXiv 2104.05279"
    teacher_weights = ("beta",)

    name: Literal["cbd"] = "cbd"
    alpha: FiniteFloat = Field(
        0.4, ge=0, le=1, description="share of the embedding's part; the rest is labels"
    )
    beta: Weight = Field(100.0, description="weight of the embedding's part in its share")
    warmup_epochs: WarmupEpochs = 1

    @property
    def student_features(self) -> tuple[str, ...]:
        """What the cosine classifier is given."""
        return (EMBEDDING,)

    @property
    def teacher_features(self) -> tuple[str, ...]:
        """What its last linear layer is given."""
        return (EMBEDDING,)
