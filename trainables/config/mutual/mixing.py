"""Hyper-parameters of MixSKD."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from trainables.config.base import FiniteFloat
from trainables.config.objective_base import STAGES, ObjectiveBase, Temperature, Weight


class MixskdMode(StrEnum):
    """Where the paper of MixSKD and its released script for CIFAR differ."""

    PAPER = "paper"
    """Mixed labels are learned; discriminators are trained, and the network learns to deceive them (that the
    gradient is reversed is inferred)."""
    SCRIPT = "script"
    """Mixed labels are left out; discriminators stay as they begin, and the network helps them."""


class MixskdConfig(ObjectiveBase):
    """MixSKD (Yang et al., ECCV 2022): one network, whose answer to a mixed image is that to both images."""

    banks = ("weak",)
    teacher_banks = ()
    unmixed_banks = ("weak",)
    one_pass = True
    structural_at_zero = ("disc_weight",)
    keeps_state = True
    paper = "Yang et al., ECCV 2022, arXiv 2208.05768"

    name: Literal["mixskd"] = "mixskd"
    mode: MixskdMode = Field(
        MixskdMode.PAPER, description="paper, or script: without mixed labels, discriminators as they begin"
    )
    concentration: FiniteFloat = Field(
        0.4, gt=0, le=100, description="a of Beta(a, a), from which a batch draws its share; ImageNet 0.2"
    )
    kl_weight: Weight = 1.0
    temperature: Temperature = 3.0
    feature_weight: Weight = Field(
        1.0, description="of the distance between maps of mixed images and mixed maps"
    )
    disc_weight: Weight = Field(
        0.0, description="of the discriminators' loss; the paper's 1; 0: there are none"
    )

    @property
    def student_features(self) -> tuple[str, ...]:
        """The map of every stage that the network has."""
        return (STAGES,)

    @property
    def pair_mixing(self) -> float | None:
        """Each image of a batch is mixed with another one."""
        return self.concentration
