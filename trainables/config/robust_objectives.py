"""Hyper-parameters of the objectives whose students see adversarial images."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from trainables.config.base import FiniteFloat
from trainables.config.objective_base import Attack, LabelUse, Need, ObjectiveBase


class AttackTarget(StrEnum):
    """What an attack leads the student away from."""

    LABELS = "labels"
    MIXTURE = "mixture"


class TeacherInput(StrEnum):
    """What the teacher is asked about."""

    VIEW = "view"
    """The view as it was rendered, before the attack: a cache holds the answer."""
    ADVERSARIAL = "adversarial"
    """The very image that the student sees, which no cache holds."""


class AkdConfig(ObjectiveBase):
    """AKD (Maroto et al., 2022): adversarial training on a mixture of the label and the teacher's answer."""

    banks = ("weak",)
    teacher_banks = ("weak",)
    unmixed_banks = ("weak",)
    label_use = LabelUse.ATTACK
    needs = frozenset({Need.ATTACK, Need.ONLINE_TEACHER})
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
    teacher_input: TeacherInput = Field(
        TeacherInput.VIEW,
        description="what the teacher answers to: the view before the attack, or the adversarial image, for "
        "which the teacher runs beside the student (cache.online)",
        # Left out of plain data where it says nothing, so that trials keep the ids that they had.
        exclude_if=lambda given: given is TeacherInput.VIEW,
    )

    @property
    def needed(self) -> frozenset[Need]:
        """The teacher itself where it is asked about images that the attack makes in each step."""
        if self.teacher_input is TeacherInput.ADVERSARIAL:
            return self.needs
        return self.needs - {Need.ONLINE_TEACHER}

    @property
    def attack(self) -> Attack:
        """How the images are changed; it leads away from the mixture in the share of the teacher.

        The teacher's part of that mixture is its answer to the view, whatever `teacher_input` says: the
        adversarial image is only there after the attack.
        """
        led_by_teacher = self.attack_target is AttackTarget.MIXTURE
        return Attack(
            epsilon=self.epsilon / 255,
            step=self.step / 255,
            steps=self.steps,
            random_start=self.random_start,
            teacher_share=self.teacher_share if led_by_teacher else 0.0,
        )
