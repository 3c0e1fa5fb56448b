"""Hyper-parameters of the objectives in which networks contrast their embeddings together."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from trainables.config.base import FiniteFloat
from trainables.config.mutual.peers import WithPeers
from trainables.config.objective_base import EMBEDDING, STAGES, Need, Temperature, Weight
from trainables.config.representation.contrast import Negatives

_TAU_OF_BANKS: Final = 0.07


class MclForm(StrEnum):
    """What MCL compares an embedding with."""

    BATCH = "batch"
    """The embeddings of the batch: the paper's form for CIFAR."""
    BANK = "bank"
    """Entries of a bank for each network, which keeps an embedding of each sample: its form for ImageNet."""


class KdHearers(StrEnum):
    """Which networks of MCL learn from the mean of all logits, where that is weighed."""

    RELEASED = "released"
    """Of two networks both; of more the last one alone, as in the released code."""
    ALL = "all"
    """All of them (inferred): of three networks or more the student, which is kept, is not the last one."""


class MclConfig(WithPeers):
    """MCL (Yang et al., AAAI 2022): networks contrast embeddings within and across each other.

    A batch in which no class has two images has no contrast of labels: `training.sampling: pairs` draws
    two images of a class at a time.
    """

    unmixed_banks = ("weak",)
    needs = frozenset({Need.ROWS})
    keeps_state = True
    paper = "Yang et al., AAAI 2022, arXiv 2104.12565"
    structural = ("peers", "form", "dim", "layers")

    name: Literal["mcl"] = "mcl"
    form: MclForm = Field(
        MclForm.BATCH,
        description="batch: the batch's embeddings (CIFAR); bank: those of all images (ImageNet)",
    )
    tau: FiniteFloat = Field(
        0.1, ge=0.005, le=10, description="divides the cosines; form bank: 0.07 where it is not given"
    )
    vcl_weight: Weight = Field(0.1, description="of the contrast within each network")
    soft_vcl_weight: Weight = Field(1.0, description="of what a network's own cosines learn from the others'")
    icl_weight: Weight = Field(0.1, description="of the contrast across two networks")
    soft_icl_weight: Weight = Field(1.0, description="of what cosines across two networks learn both ways")
    temperature: Temperature = Field(3.0, description="of the soft terms, and of the mean of logits")
    kd_weight: Weight = Field(
        0.0, description="of learning from the mean of all logits; the paper has 0 and 1"
    )
    kd_hearers: KdHearers = Field(
        KdHearers.RELEASED,
        description="who learns from that mean: released (two networks both, of more the last alone), or all",
    )
    dim: int = Field(128, ge=1, le=4096, description="numbers in a projected embedding")
    negatives: Negatives = Field(
        8192, description="form bank: images of other classes for each image; fewer where there are fewer"
    )
    momentum: FiniteFloat = Field(
        0.5, ge=0, le=1, description="form bank: share of the old entry in a new one"
    )
    layers: bool = Field(
        False,
        description="the same losses on branches at the earlier stages too (inferred, arXiv 2207.11518)",
    )

    @model_validator(mode="before")
    @classmethod
    def _tau_of_the_form(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("form") == MclForm.BANK:
            return {"tau": _TAU_OF_BANKS, **data}
        return data

    @property
    def student_features(self) -> tuple[str, ...]:
        """The embedding of each network; with branches its stages too."""
        return (EMBEDDING, STAGES) if self.layers else (EMBEDDING,)

    @property
    def contrasts_batch(self) -> bool:
        """The contrast of labels is within a batch, where there is one."""
        return self.form is MclForm.BATCH and max(self.vcl_weight, self.icl_weight) > 0
