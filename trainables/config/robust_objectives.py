"""Hyper-parameters of the objectives whose students see adversarial images."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from trainables.config.base import FiniteFloat
from trainables.config.objective_base import Attack, Need, ObjectiveBase


class AttackTarget(StrEnum):
    """What an attack leads the student away from."""

    LABELS = "labels"
    MIXTURE = "mixture"


class AkdConfig(ObjectiveBase):
    """AKD (Maroto et al., 2022): adversarial training on a mixture of the label and the teacher's answer."""

    banks = ("weak",)
    teacher_banks = ("weak",)
    unmixed_banks = ("weak",)
    needs = frozenset({Need.ATTACK})
    paper = "Maroto et al., 2022, arXiv 2203.07159 (details inferred)"

    name: Literal["akd"] = "akd"
    teacher_share: FiniteFloat = Field(0.5, ge=0, le=1, description="of the teacher's answer in the target")
    epsilon: FiniteFloat = Field(
        8.0, ge=0, le=255, description="largest change of a pixel, in levels of 0 to 255; 4 is a weak attack"
    )
    step: FiniteFloat = Field(2.0, gt=0, le=255, description="change in a step of the attack, in levels")
    steps: int = Field(10, ge=1, le=1000, description="of the attack, each a forward and a backward pass")
    random_start: bool = Field(True, description="begin the attack anywhere within epsilon")
    attack_target: AttackTarget = Field(
        AttackTarget.LABELS, description="what the attack leads away from: the labels, or the whole mixture"
    )

    @property
    def attack(self) -> Attack:
        """How the images are changed; it leads away from the mixture in the share of the teacher."""
        led_by_teacher = self.attack_target is AttackTarget.MIXTURE
        return Attack(
            epsilon=self.epsilon / 255,
            step=self.step / 255,
            steps=self.steps,
            random_start=self.random_start,
            teacher_share=self.teacher_share if led_by_teacher else 0.0,
        )
