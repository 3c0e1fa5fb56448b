"""What the configuration of every objective states: its views, its needs, its paper; and the usual bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import Field
from pydantic_core import to_jsonable_python

from trainables.config.base import Config, FiniteFloat, Scalar
from trainables.config.data import UnlabelledConfig
from trainables.config.schedules import TemperatureSchedule, temperature_at, warm_up

EMBEDDING: Final = "embedding"
"""The name of the feature that a network's last linear, or cosine, layer is given."""

ROTATED: Final = ("weak", "weak90", "weak180", "weak270")
"""The weak view and its quarter turns anticlockwise, in the order of the papers' rows of an image."""

MIXED: Final = "mixed"
"""What stands among the banks for mixtures of each image of a batch with another one of it."""

OR: Final = "|"
"""Between names of features: the first of them that a network has is meant, and served under its own name."""

PRE: Final = ".pre"
"""Behind the name of a stage: its map before the last activation."""

STAGES: Final = "stages"
"""Among the names of a student's features: all stages that it has, each served under its own name."""

Temperature = Annotated[FiniteFloat, Field(gt=0, le=100)]
Weight = Annotated[FiniteFloat, Field(ge=0, le=1000)]
Threshold = Annotated[FiniteFloat, Field(ge=0, le=1)]
Epochs = Annotated[int, Field(ge=1, le=10_000)]
Standardise = Annotated[
    bool,
    Field(description="both networks' logits are brought to mean 0 and deviation 1 first (LSKD, CVPR 2024)"),
]
# What follows is left out of plain data where it changes nothing, so that trials keep the ids that they had.
WarmupEpochs = Annotated[
    int,
    Field(
        ge=1,
        le=10_000,
        description="epochs of linear warm-up of all weights of the teacher's terms; 1 is none",
        exclude_if=lambda epochs: epochs == 1,
    ),
]
FinalTemperature = Annotated[
    FiniteFloat,
    Field(
        ge=0,
        le=100,
        description="temperature of the last epoch, to which that of the first goes; 0: it stays as it is",
        exclude_if=lambda temperature: temperature == 0,
    ),
]
TowardsFinal = Annotated[
    TemperatureSchedule,
    Field(
        description="with final_temperature: the way to it over the epochs, linear or half a cosine",
        exclude_if=lambda schedule: schedule is TemperatureSchedule.LINEAR,
    ),
]


class Need(StrEnum):
    """What an objective asks for beside logits and labels."""

    ALL_CLASSES = "all_classes"
    """The teacher's logits of every class: a cache of the top k is not enough."""
    UNSHIFTED = "unshifted"
    """The teacher's logits themselves, not up to a constant per row."""
    COSINE_HEAD = "cosine_head"
    """A student with a cosine classifier, on an embedding as wide as the teacher's."""
    TEACHER_CLASSIFIER = "teacher_classifier"
    """The weights of the teacher's last linear layer."""
    IMAGES = "images"
    """The images that the student is given."""
    DENSE_LOGITS = "dense_logits"
    """The student's classifier at each position of its last feature map."""
    ROWS = "rows"
    """Which samples of the training split a batch holds: for a table by sample, or to know one again."""
    ATTACK = "attack"
    """The student sees adversarial images, which the loop makes in each step."""
    ONLINE_TEACHER = "online_teacher"
    """The teacher's answer to the student's images: it runs beside it. `teacher_banks` are in `banks`."""


OF_A_TEACHER: Final = frozenset(
    {Need.ALL_CLASSES, Need.UNSHIFTED, Need.TEACHER_CLASSIFIER, Need.ONLINE_TEACHER}
)
"""What nobody but a teacher can give."""


class Preparation(StrEnum):
    """What is trained on a finished teacher before students hear it; its own weights and answers stay."""

    SS_HEAD = "ss_head"
    """SSKD's head on its embedding, which gives the feature `ss_head`."""
    BRANCHES = "branches"
    """HSAKD's classifiers of class and turn on its stages, which give `branch1`, `branch2` and so on."""


class LabelUse(StrEnum):
    """What the teacher's terms ask of a sample's label, which an unlabelled image does not have."""

    NONE = "none"
    TARGET_CLASS = "target_class"
    """They part the label's class from the others."""
    ATTACK = "attack"
    """The student's image is led away from its label."""


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
    teacher_weights: ClassVar[tuple[str, ...]] = ()
    """The hyper-parameters that weigh what the teacher says, each once: `warmup_epochs` scales them."""

    class_weights: ClassVar[tuple[str, ...]] = ()
    """The weights of what teaches the student's own answers, where all may be 0; see `learns_classes`."""

    label_use: ClassVar[LabelUse] = LabelUse.NONE
    """What the teacher's terms ask of a label with some hyper-parameters; see `uses_label`."""
    preparation: ClassVar[Preparation | None] = None
    """What the teacher is prepared with, once for all trials, where an objective of the space asks for it."""

    with_peers: ClassVar[bool] = False
    """Whether other networks are trained together with the student: then `peers` says how many, or which."""

    one_pass: ClassVar[bool] = False
    """Whether the student sees the banks as one batch, and its batch statistics are over all of them."""

    keeps_state: ClassVar[bool] = False  # parameters or buffers of its own, which live as long as the course
    structural: ClassVar[tuple[str, ...]] = ()
    """The hyper-parameters that size or shape the objective's own parameters and buffers, or choose which
    features it asks for: a course goes on from another one's state only where these are the same."""

    structural_at_zero: ClassVar[tuple[str, ...]] = ()
    """The weights of which the same is true between 0, which leaves out what they weigh, and more than 0."""

    @classmethod
    def defaults(cls, chosen: Mapping[str, Scalar] = MappingProxyType({})) -> dict[str, Scalar]:
        """The papers' values as plain data, with those that `plain` leaves out, and with what is chosen.

        A choice may have other weights in its paper: that of a `base` for one.
        """
        values: dict[str, Scalar] = to_jsonable_python(dict(cls.from_plain(dict(chosen))))
        return values

    def with_overrides(self, **changes: Any) -> Self:
        """A copy with some fields replaced, checked again as a whole.

        A value that is the default of what was chosen becomes the default of what is chosen now.
        """
        now: dict[str, Scalar] = to_jsonable_python(dict(self))
        needed = {name: now[name] for name, field in type(self).model_fields.items() if field.is_required()}
        before = self.defaults({**needed, **{name: now[name] for name in changes if name in now}})
        after = self.defaults({**needed, **changes})
        moved = {name: value for name, value in after.items() if now[name] == before[name] != value}
        return super().with_overrides(**{**moved, **changes})

    @property
    def needed(self) -> frozenset[Need]:
        """What this objective asks for with these hyper-parameters."""
        return self.needs

    @property
    def student_features(self) -> tuple[str, ...]:
        """The names of the student's features that this objective asks for, of each of `banks`."""
        return ()

    @property
    def teacher_features(self) -> tuple[str, ...]:
        """The names of the teacher's features that this objective asks for, of each of `teacher_banks`."""
        return ()

    @property
    def n_networks(self) -> int:
        """Networks that are trained together, the student included."""
        return 1

    @property
    def pair_mixing(self) -> float | None:
        """a of Beta(a, a): each batch draws the share that mixes pairs of its images, seen as `mixed`."""
        return None

    @property
    def contrasts_batch(self) -> bool:
        """Whether it compares the images of a batch by their classes, and so wants several of each class."""
        return False

    @property
    def hears_teacher(self) -> bool:
        """Whether it asks a teacher for anything: logits, features, a preparation, or the network."""
        asked = (self.teacher_banks, self.teacher_features, OF_A_TEACHER & self.needed)
        return any(asked) or self.preparation is not None

    @property
    def uses_label(self) -> LabelUse:
        """What the teacher's terms ask of a sample's label with these hyper-parameters."""
        return self.label_use

    @property
    def learns_classes(self) -> bool:
        """Whether some term teaches the student's own answers: the labels, or the teacher's logits.

        Where none does, as where features alone are compared, the student's accuracy is that of chance.
        """
        return not self.class_weights or any(getattr(self, name) > 0 for name in self.class_weights)

    def refuses_unlabelled(self, unlabelled: UnlabelledConfig) -> str | None:
        """Why this objective cannot learn from unlabelled images; none where it can, or hears no teacher."""
        if not self.teacher_banks or self.uses_label is LabelUse.NONE:
            return None
        if self.uses_label is LabelUse.ATTACK:
            return "it attacks each image away from its label, and these have none"
        if unlabelled.top_class_as_target:
            return None
        return (
            "its teacher's term is about the label's class, and these have none; "
            "`data.unlabelled.top_class_as_target: true` takes the teacher's most probable class for it"
        )

    @property
    def attack(self) -> Attack | None:
        """How the student's images are made adversarial, in every bank; none where they stay as they are."""
        return None

    def varying(self, epoch: int, epochs: int | None) -> dict[str, float]:
        """What changes over a course, as it is in an epoch (counted from 1) of so many: nothing by default.

        `warmup` is the factor of the teacher's weights, `temperature` the temperature itself.

        Raises:
            ValueError: the temperature changes, and nobody said how many epochs there are, or too few.
        """
        # Not every objective has these: some have no temperature, or one that is learned.
        fields: dict[str, Any] = dict(self)
        values = {}
        if fields.get("warmup_epochs", 1) > 1:
            values["warmup"] = warm_up(epoch, fields["warmup_epochs"])
        if fields.get("final_temperature", 0) > 0:
            if epochs is None:
                raise ValueError("a temperature that changes needs the epochs of the course; say how many")
            values["temperature"] = temperature_at(
                epoch,
                epochs,
                first=fields["temperature"],
                last=fields["final_temperature"],
                schedule=fields["temperature_schedule"],
            )
        return values

    def at(self, epoch: int, epochs: int | None) -> Self:
        """These hyper-parameters as they are in an epoch (counted from 1) of so many, and constant.

        Raises:
            ValueError: the temperature changes, and nobody said how many epochs there are, or too few.
        """
        now = self.varying(epoch, epochs)
        changes: dict[str, Any] = {}
        if "warmup" in now:
            changes |= {name: now["warmup"] * getattr(self, name) for name in self.teacher_weights}
            changes["warmup_epochs"] = 1
        if "temperature" in now:
            changes |= {"temperature": now["temperature"], "final_temperature": 0.0}
            changes["temperature_schedule"] = TemperatureSchedule.LINEAR
        # Unchecked, in each step: what lies between two values within their bounds lies there too.
        return self.model_copy(update=changes) if changes else self
