"""Hyper-parameters of the objectives that tell a sample's embedding from those of other samples."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from trainables.config.base import FiniteFloat
from trainables.config.objective_base import (
    Need,
    Weight,
)
from trainables.config.representation.bases import OnEmbeddings

Negatives = Annotated[int, Field(ge=1, le=1_000_000)]


class Positive(StrEnum):
    """Which sample's bank entry CRD takes as the partner of an embedding."""

    EXACT = "exact"
    """The sample's own."""
    RELAXED = "relaxed"
    """That of a random sample of its class."""


class NegativeDraw(StrEnum):
    """How CRD draws negatives for the samples of a batch."""

    BATCH = "batch"
    """One random order of the training samples a step; each sample takes the first ones of other classes.

    Inferred. A sample's negatives have the same distribution as with `sample`, so loss and gradient are the
    same in the mean; those of one batch are not independent. The product of scores is over K candidates and
    few more, not over all training samples, and one order is drawn, not one for each sample.
    """
    SAMPLE = "sample"
    """Each sample draws its own, as in the released code."""


class Shortage(StrEnum):
    """What CRD does where there are fewer samples of other classes than negatives are asked for."""

    CAP = "cap"
    """All samples draw as many as the smallest of these pools has.

    Inferred. K is smaller then, and with it q = K / N and the loss, log(1 + K) + 1 for each network at first;
    what all negatives together push hardly depends on K. Each is there once, not several times by chance.
    """
    REPEAT = "repeat"
    """A sample whose pool is too small draws from it with replacement, as in the released code."""


class CrdConfig(OnEmbeddings):
    """CRD (Tian et al., ICLR 2020): a pair of embeddings of one sample told from pairs of two samples."""

    unmixed_banks = ("weak",)
    needs = frozenset({Need.ROWS})
    keeps_state = True
    paper = "Tian et al., ICLR 2020, arXiv 1910.10699"
    teacher_weights = ("beta", "kd_weight")
    structural = ("dim",)

    name: Literal["crd"] = "crd"
    beta: Weight = Field(0.8, description="weight of the contrast")
    tau: FiniteFloat = Field(0.07, ge=0.005, le=10, description="divides the cosines of the contrast")
    negatives: Negatives = Field(16384, description="samples of other classes for each sample of a batch")
    momentum: FiniteFloat = Field(
        0.5, ge=0, le=1, description="share of the old entry in a new one of a bank"
    )
    dim: int = Field(128, ge=1, le=4096, description="numbers in a projected embedding")
    positive: Positive = Field(Positive.EXACT, description="the sample itself, or (relaxed) one of its class")
    draw: NegativeDraw = Field(
        NegativeDraw.BATCH,
        description="batch: one order of all a step (inferred, cheap); sample: each draws (released code)",
    )
    when_short: Shortage = Field(
        Shortage.CAP,
        description="too few of other classes: cap: all draw so many (inferred), repeat: released code",
    )
