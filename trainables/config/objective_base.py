"""What the configuration of every objective states: its views, its needs, its paper; and the usual bounds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from trainables.config.base import Config, FiniteFloat

Temperature = Annotated[FiniteFloat, Field(gt=0, le=100)]
Weight = Annotated[FiniteFloat, Field(ge=0, le=1000)]
Threshold = Annotated[FiniteFloat, Field(ge=0, le=1)]
Epochs = Annotated[int, Field(ge=1, le=10_000)]
Standardise = Annotated[
    bool,
    Field(
        description="logits of both networks are brought to mean 0 and deviation 1 first (LSKD, CVPR 2024)",
    ),
]


class Need(StrEnum):
    """What an objective asks for beside logits and labels."""

    ALL_CLASSES = "all_classes"
    """The teacher's logits of every class: a cache of the top k is not enough."""
    UNSHIFTED = "unshifted"
    """The teacher's logits themselves, not up to a constant per row."""
    TEACHER_EMBEDDING = "teacher_embedding"
    """The teacher's penultimate embedding."""
    STUDENT_EMBEDDING = "student_embedding"
    """The student's penultimate embedding, with gradient."""
    DENSE_LOGITS = "dense_logits"
    """The student's classifier at each position of its last feature map."""
    ROWS = "rows"
    """Which samples of the training split a batch holds, for a table by sample."""
    ATTACK = "attack"
    """The student sees adversarial images, which the loop makes in each step."""


@dataclass(frozen=True)
class Attack:
    """Projected gradient ascent within a ball of the maximum norm; sizes are of pixels in [0, 1]."""

    epsilon: float
    """Radius of the ball."""
    step: float
    steps: int
    random_start: bool
    teacher_share: float = 0.0
    """Of the teacher's answer in what the student is led away from; the rest is the label."""


class ObjectiveBase(Config):
    """What every objective states beside its hyper-parameters."""

    banks: ClassVar[tuple[str, ...]]
    """Views that the student sees, in order; the first is the one for accuracy."""
    teacher_banks: ClassVar[tuple[str, ...]]
    """Banks whose teacher logits are needed."""
    unmixed_banks: ClassVar[tuple[str, ...]] = ()
    """Banks whose recipe may not mix samples: beyond the cross-entropy, an image there is taken to have one
    label, or is compared with another view of its sample."""
    needs: ClassVar[frozenset[Need]] = frozenset()
    """What this objective asks for with some hyper-parameters; see `needed`."""
    paper: ClassVar[str]

    @property
    def needed(self) -> frozenset[Need]:
        """What this objective asks for with these hyper-parameters."""
        return self.needs

    @property
    def attack(self) -> Attack | None:
        """How the student's images are made adversarial, in every bank; none where they stay as they are."""
        return None
