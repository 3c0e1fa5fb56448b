"""What an objective is given and what it returns: the contract between loop, cache and objectives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError, dataclass, field, replace
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from trainables.config.objective_base import ObjectiveBase

ConfigT = TypeVar("ConfigT", bound=ObjectiveBase)

# B = samples in the batch, C = classes, D = numbers in an embedding
# K = images that are mixed into one, its own first


@dataclass(frozen=True)
class TeacherSignal:
    """The teacher's answer to one view of a batch, without gradient."""

    logits_BC: Tensor
    """fp32; from a cache up to a constant per row (z - max z when it keeps fp16)."""
    confidence_B: Tensor
    """fp32; largest softmax probability at temperature 1, of the logits as kept."""
    embedding_BD: Tensor | None = None
    """fp32; what the teacher's last linear layer was given. None where nobody kept it."""
    logit_max_B: Tensor | None = None
    """fp32; the teacher's largest logit, which a cache takes off the logits (not one in fp32). None where the
    teacher itself has just said its logits as they are."""

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors."""
        held = (self.logits_BC, self.confidence_B, self.embedding_BD, self.logit_max_B)
        return sum(tensor.nbytes for tensor in held if tensor is not None)

    def each(self, change: Callable[[Tensor], Tensor]) -> TeacherSignal:
        """The signal with each of its tensors changed."""
        embedding_BD, logit_max_B = self.embedding_BD, self.logit_max_B
        return TeacherSignal(
            change(self.logits_BC),
            change(self.confidence_B),
            None if embedding_BD is None else change(embedding_BD),
            None if logit_max_B is None else change(logit_max_B),
        )

    def unshifted(self) -> TeacherSignal:
        """The signal with the teacher's own logits: what a cache took off each row is added again."""
        if self.logit_max_B is None:
            return self
        missing_B = self.logit_max_B - self.logits_BC.amax(dim=-1)  # 0 where the cache keeps the logits
        return replace(self, logits_BC=self.logits_BC + missing_B[:, None])


@dataclass(frozen=True)
class Mixing:
    """Of which samples the images of one bank are made, where its recipe mixes them (mixup, cutmix)."""

    labels_BK: Tensor
    """int64 class indices; the first column holds the samples' own."""
    shares_BK: Tensor
    """fp32; how much of each image is whose. A row sums to 1."""


@dataclass(frozen=True)
class Labelling:
    """Which samples of a batch have labels, where there are unlabelled ones beside them."""

    count: int
    """The first so many have; those behind them have none."""
    scale: float = 1.0
    """What the mean over this rank's labelled samples is multiplied by, so that the ranks' losses together
    are those of the whole batch; 1 where one rank has it all."""


@dataclass(frozen=True)
class Signals:
    """One training step's signals, by bank (`weak`, `strong`)."""

    student: Mapping[str, Tensor]
    """Student logits BxC of each bank that the objective names."""
    teacher: Mapping[str, TeacherSignal]
    labels_B: Tensor
    """int64 class indices of the samples themselves; a mixed bank shows other samples too, see `mixed`. Of
    unlabelled samples -1, or, where `top_class_as_target` says so, the teacher's most probable class."""
    epoch: int
    """Counted from 1."""
    mixed: Mapping[str, Mixing] = field(default_factory=dict)
    """What the banks show whose recipe mixes samples; the others are absent.

    `label_loss(signals, bank)` hears of it; an objective that uses `labels_B` in any other
    way names the bank in `unmixed_banks` of its configuration.
    """
    rows_B: Tensor | None = None
    """int64 rows of the training split, for objectives that need them (`Need.ROWS`)."""
    dense: Mapping[str, Tensor] = field(default_factory=dict)
    """By bank, the student's classifier at each position of its last feature map, BxCxHxW, without gradient;
    for objectives that need it (`Need.DENSE_LOGITS`)."""
    embedding: Mapping[str, Tensor] = field(default_factory=dict)
    """By bank, what the student's cosine classifier was given, BxD, with gradient; for objectives that need
    it (`Need.STUDENT_EMBEDDING`)."""
    label_smoothing: float = 0.0
    """The recipe's; `label_loss(signals, bank)` smooths the labels by it."""
    epochs: int | None = None
    """Of the whole course, for hyper-parameters that change over it."""
    labelling: Labelling | None = None
    """None where all samples have labels; `label_loss(signals, bank)` hears of it, and `mixed` is of those
    that have."""


@dataclass(frozen=True)
class Losses:
    """What an objective returns for one step."""

    total: Tensor
    """The scalar to minimise."""
    terms: Mapping[str, Tensor]
    """Named scalar terms, before their weights (T² included), each logged on its own."""
    gauges: Mapping[str, Tensor]
    """Named scalars that are no losses, such as the fraction of samples kept by a threshold."""


@dataclass(frozen=True)
class Setting:
    """What an objective with a state of its own is made for."""

    n_samples: int
    """Of the training split."""
    n_classes: int
    epochs: int
    """Of the whole course."""


class Objective(nn.Module, Generic[ConfigT]):
    """A distillation objective: a function of the signals, most of them without parameters or buffers.

    Parameters are trained together with the student; parameters and buffers are part of the state that a
    course goes on from.
    """

    config: ConfigT

    def __init__(self, config: ConfigT, setting: Setting | None = None) -> None:
        """`setting` is for objectives with a state of their own, see `StatefulObjective`."""
        super().__init__()
        self.config = config

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse another configuration: a trial is known by the one that it began with."""
        if name == "config" and name in self.__dict__:
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        super().__setattr__(name, value)

    def __call__(self, signals: Signals) -> Losses:
        """The losses of one step."""
        losses: Losses = super().__call__(signals)
        return losses

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient."""
        raise NotImplementedError


class StatefulObjective(Objective[ConfigT]):
    """An objective with a state of its own, which is made for a setting."""

    def __init__(self, config: ConfigT, setting: Setting | None = None) -> None:
        """Subclasses add their parameters and buffers.

        Raises:
            ValueError: there is no setting.
        """
        super().__init__(config)
        if setting is None:
            name = getattr(config, "name", type(self).__name__)
            raise ValueError(f"{name} has a state of its own; give the setting that it is made for")
        self.setting = setting
