"""A course: a network, and how it is trained; and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn

from trainables.config import ObjectiveBase, TrainingConfig, TrainingPrecision
from trainables.config.metrics import RankBy
from trainables.models.features import FeatureTap
from trainables.training.precision import ASKED_FOR
from trainables.training.ranks import SOLO, Forward, Team


@dataclass(frozen=True)
class Trained:
    """A network that a course trains, and how it computes."""

    model: nn.Module
    precision: TrainingPrecision = TrainingPrecision.AUTO
    """What `training.precision` came to on this device; auto leaves it to the recipe, whose auto is fp32."""
    forward: Forward | None = None
    """The model's forward pass in training where that is compiled; it must share the model's weights, and
    give features too where the objective asks for some."""
    tap: FeatureTap | None = None
    """What reads the features in a compiled forward pass."""
    stated: Mapping[str, str] = field(default_factory=dict)
    """Module paths of the network's features by name, as the experiment says."""

    def resolved_precision(self, training: TrainingConfig) -> TrainingPrecision:
        """fp32 or bf16: never auto, which only the device can decide."""
        for wish in (self.precision, training.precision):
            if wish is not TrainingPrecision.AUTO:
                return wish
        return TrainingPrecision.FP32


@dataclass(frozen=True)
class Course:
    """A network and how it is trained, and the networks that are trained together with it."""

    model: nn.Module
    objective: ObjectiveBase
    training: TrainingConfig
    seed: int
    precision: TrainingPrecision = TrainingPrecision.AUTO
    """What `training.precision` came to on this device; auto leaves it to the recipe, whose auto is fp32."""
    forward: Forward | None = None
    """The model's forward pass in training where that is compiled; it must share the model's weights, and
    give features too where the objective asks for some."""
    tap: FeatureTap | None = None
    """What reads the features in a compiled forward pass."""
    stated: Mapping[str, str] = field(default_factory=dict)
    """Module paths of the student's features by name, as the experiment says."""
    team: Team = SOLO
    """The ranks that train it together."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """Metrics of the network itself, the same in every epoch."""
    precision_by: str = ASKED_FOR
    """What chose `precision`."""
    rank_by: RankBy = RankBy.ACCURACY
    """The figure of the selection split by which the best epoch is chosen."""
    keeps_last: bool = False
    """Whether the last epoch counts as the best, since no figure of the selection split tells them apart."""
    peers: tuple[Trained, ...] = ()
    """The networks that are trained beside the student, where the objective has some. They are neither
    selected nor kept."""
    fresh: Callable[[str, int], nn.Module] | None = None
    """Called with a purpose and the number of a network (0 the student, then its peers); gives another one of
    its shape, with random weights that hang on the purpose. Needed where auxiliary branches are made."""

    @property
    def student(self) -> Trained:
        """The student itself."""
        return Trained(self.model, self.precision, self.forward, self.tap, self.stated)

    def resolved_precision(self) -> TrainingPrecision:
        """fp32 or bf16 of the student: never auto, which only the device can decide."""
        return self.student.resolved_precision(self.training)


@dataclass(frozen=True)
class TrainingResult:
    """How a course ended; unless it was stopped, the model then holds the weights of its best epoch."""

    epochs: int
    stopped: bool
    best_epoch: int
    best: dict[str, float]
