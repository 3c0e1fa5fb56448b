"""The training recipe of a student or a teacher."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from trainables.config.base import Config, FiniteFloat


class OptimizerName(StrEnum):
    """Optimisers of the loop."""

    SGD = "sgd"
    ADAMW = "adamw"


class ScheduleName(StrEnum):
    """How the learning rate goes down."""

    CONSTANT = "constant"
    COSINE = "cosine"
    STEP = "step"


class Sampling(StrEnum):
    """Which samples an epoch goes through."""

    NATURAL = "natural"
    CLASS_BALANCED = "class_balanced"
    PAIRS = "pairs"

    @property
    def together(self) -> int:
        """Rows that follow each other in an epoch and come into one batch, and to one worker, together."""
        return 2 if self is Sampling.PAIRS else 1


class TrainingPrecision(StrEnum):
    """Numbers of the student's forward pass and its gradient; weights and losses are fp32 in any case."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"


Pattern = Annotated[str, Field(min_length=1, max_length=200)]
FactorOfRate = Annotated[FiniteFloat, Field(gt=0, le=1000)]


def _is_nothing(value: object) -> bool:
    """Left out where it says nothing, so that trials keep the ids that they had."""
    return value is None or value == 0


class TrainingConfig(Config):
    """Budget and optimiser; the same record serves teacher, students and the control."""

    epochs: int = Field(20, ge=1, le=100_000, description="passes over the training split")
    batch_size: int = Field(64, ge=1, le=65_536, description="samples in a step")
    eval_batch_size: int = Field(512, ge=1, le=65_536, description="samples in an evaluation batch")
    optimizer: OptimizerName = Field(OptimizerName.SGD, description="sgd or adamw")
    lr: FiniteFloat = Field(0.05, gt=0, le=100, description="peak learning rate")
    momentum: FiniteFloat = Field(0.9, ge=0, lt=1, description="of sgd")
    nesterov: bool = Field(False, description="of sgd")
    weight_decay: FiniteFloat = Field(5e-4, ge=0, le=10, description="decoupled for adamw")
    schedule: ScheduleName = Field(ScheduleName.COSINE, description="constant, cosine or step")
    warmup_epochs: FiniteFloat = Field(0.0, ge=0, description="linear warm-up, in epochs")
    milestones: Annotated[
        tuple[int, ...], Field(description="epochs after which a step schedule decays")
    ] = ()
    gamma: FiniteFloat = Field(0.1, gt=0, le=1, description="factor at each milestone")
    label_smoothing: FiniteFloat = Field(
        0.0,
        ge=0,
        lt=1,
        description="part of each label that is spread evenly over all classes, in the cross-entropy with "
        "the labels of every objective but ls, which has a smoothing of its own",
        exclude_if=_is_nothing,
    )
    clip_norm: FiniteFloat | None = Field(
        None,
        gt=0,
        description="largest norm of a step's gradient, which is scaled down to it; default: any",
        exclude_if=_is_nothing,
    )
    ema: FiniteFloat | None = Field(
        None,
        ge=0,
        lt=1,
        description="decay, per step, of a running mean of the weights; the mean is then what is evaluated, "
        "selected and kept; default, and with 0: the weights themselves",
        exclude_if=_is_nothing,
    )
    freeze: tuple[Pattern, ...] = Field(
        (),
        max_length=100,
        description="parts of a student that keep the weights it starts from, as [stem, layer1, layer2.0]: "
        "modules and parameters by name, with all below them; * stands for anything, `backbone` for all but "
        "the head; their batch norm and dropout are as in evaluation",
        exclude_if=lambda value: not value,
    )
    lr_groups: dict[Pattern, FactorOfRate] = Field(
        {},
        max_length=100,
        description="learning rates of parts of a student, as factors of `lr`: {backbone: 0.1}; names as for "
        "`freeze`, and `head`; where several fit, the longer name counts",
        exclude_if=lambda value: not value,
    )
    sampling: Sampling = Field(
        Sampling.NATURAL,
        description="natural: each sample once an epoch; class_balanced: each class equally often, with "
        "samples of small classes several times; pairs: each sample once an epoch, two of a class at a time "
        "(the last of an odd number with another one that comes again), for an even batch_size",
        exclude_if=lambda value: value is Sampling.NATURAL,
    )
    checkpoint_every: int = Field(5, ge=1, description="epochs between checkpoints to resume from")
    precision: TrainingPrecision = Field(
        TrainingPrecision.AUTO,
        description="of a student's forward pass: fp32, bf16 (autocast; losses stay fp32), or auto: bf16 "
        "where a table says so for the slot's kind of device and the student's layers; a teacher's auto is "
        "fp32",
    )
    compile: bool = Field(
        False,
        description="torch.compile the student, once per architecture and slot; takes a minute or so, so for "
        "long trainings; a teacher is not compiled",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.schedule is ScheduleName.STEP and not self.milestones:
            raise ValueError("schedule step needs `milestones`")
        if self.schedule is not ScheduleName.STEP and self.milestones:
            raise ValueError("`milestones` are for schedule step")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum above 0")
        if self.batch_size % self.sampling.together:
            raise ValueError(
                f"sampling {self.sampling} needs an even `batch_size`, and {self.batch_size} samples are not "
                "whole pairs"
            )
        return self
