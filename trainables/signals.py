"""What an objective is given and what it returns: the contract between loop, cache and objectives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
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
    features: Mapping[str, Tensor] = field(default_factory=dict)
    """fp32, by name, those that were asked for: `embedding` BxD (what its last linear layer was given),
    `stage2` BxCxHxW, `tokens` BxPxD and so on; see `trainables.models.features`."""
    logit_max_B: Tensor | None = None
    """fp32; the teacher's largest logit, which a cache takes off the logits (not one in fp32). None where the
    teacher itself has just said its logits as they are."""

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors."""
        held = (self.logits_BC, self.confidence_B, self.logit_max_B, *self.features.values())
        return sum(tensor.nbytes for tensor in held if tensor is not None)

    def each(self, change: Callable[[Tensor], Tensor]) -> TeacherSignal:
        """The signal with each of its tensors changed."""
        logit_max_B = self.logit_max_B
        return TeacherSignal(
            change(self.logits_BC),
            change(self.confidence_B),
            {name: change(feature) for name, feature in self.features.items()},
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
class Pairs:
    """How each image of a batch is mixed with another one of it, for objectives that compare both."""

    partner_B: Tensor
    """int64 places in the batch: a permutation."""
    share: Tensor
    """fp32 scalar; of each image's own part, the rest is its partner's."""

    def mixed(self, rows: Tensor) -> Tensor:
        """share · row + (1 - share) · partner's row, of images, logits or maps."""
        return self.share * rows + (1 - self.share) * rows[self.partner_B]


@dataclass(frozen=True)
class PeerSignal:
    """What a network that is trained beside the student says of what the student is shown; with gradient."""

    logits: Mapping[str, Tensor]
    """By bank, BxC."""
    features: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """By bank and name, as `Signals.features`."""


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
    features: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """By bank and name, the student's features, fp32 and with gradient: those of `student_features` in the
    objective's configuration, of the shapes that `TeacherSignal.features` has."""
    images: Mapping[str, Tensor] = field(default_factory=dict)
    """By bank, the normalised images BxCxHxW that the student was given, for objectives that need them
    (`Need.IMAGES`)."""
    label_smoothing: float = 0.0
    """The recipe's; `label_loss(signals, bank)` smooths the labels by it."""
    epochs: int | None = None
    """Of the whole course, for hyper-parameters that change over it."""
    labelling: Labelling | None = None
    """None where all samples have labels; `label_loss(signals, bank)` hears of it, and `mixed` is of those
    that have."""
    peers: tuple[PeerSignal, ...] = ()
    """Of the networks that are trained together with the student (`with_peers`), in their order."""
    pairs: Pairs | None = None
    """How the images of the bank `mixed` were made, for objectives that have some (`pair_mixing`)."""


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
class TeacherClassifier:
    """The teacher's last linear layer: logits = weight @ embedding + bias."""

    weight_CD: Tensor
    """fp32."""
    bias_C: Tensor
    """fp32; zeros where the layer has none."""


LaterStages = Callable[[str, int], nn.Module]
"""Called with the name of a stage and the number of a network (0 the student, then its peers); gives a module
that makes of that stage's map what the rest of such a network would, with fresh weights of its own."""


@dataclass(frozen=True)
class Setting:
    """What an objective with a state of its own is made for."""

    n_samples: int
    """Of the training split, and of the unlabelled images behind it where the objective learns from them."""
    n_classes: int
    epochs: int
    """Of the whole course."""
    labels_N: Tensor | None = None
    """int64, on the CPU: of these by row, -1 of the unlabelled, for objectives with a table of them."""
    student_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """By name, the shape of one sample's student feature: (D,), (C, H, W) or (P, D)."""
    teacher_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The same of the teacher's features."""
    classifier: TeacherClassifier | None = None
    """For objectives that need it (`Need.TEACHER_CLASSIFIER`)."""
    image_shape: tuple[int, int, int] | None = None
    """Channels, height, width of the images that the student is given."""
    peer_shapes: tuple[Mapping[str, tuple[int, ...]], ...] = ()
    """Of each network that is trained beside the student, the shapes of its features, as `student_shapes`."""
    later_stages: LaterStages | None = None
    """What auxiliary branches are built with."""
    computing: Callable[[], AbstractContextManager[object]] = nullcontext
    """The context in which the student computes (autocast, or nothing), for auxiliary branches; losses are
    computed outside it."""


class Objective(nn.Module, Generic[ConfigT]):
    """A distillation objective: a function of the signals, most of them without parameters or buffers.

    Parameters are trained together with the student; parameters and buffers are part of the state that a
    course goes on from.
    """

    config: ConfigT
    row_tables: tuple[str, ...] = ()
    """Names of the buffers with one row for each training sample, of which a step writes those of its own
    batch: ranks that train together make them common after each epoch."""

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


def student_feature(signals: Signals, bank: str, name: str) -> Tensor:
    """The student's feature of that name on a bank, fp32 and with gradient.

    Raises:
        ValueError: the signals hold none.
    """
    return _served(signals.features.get(bank, {}), name, f"the student's on bank {bank}")


def teacher_feature(signals: Signals, bank: str, name: str) -> Tensor:
    """The teacher's feature of that name on a bank, fp32, without gradient.

    Raises:
        ValueError: the signals hold none.
    """
    return _served(signals.teacher[bank].features, name, f"the teacher's on bank {bank}").detach()


def _served(features: Mapping[str, Tensor], name: str, whose: str) -> Tensor:
    if name not in features:
        raise ValueError(f"the signals hold no feature {name!r} ({whose}); serve those that it asks for")
    return features[name]
