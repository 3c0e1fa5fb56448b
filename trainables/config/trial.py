"""What a worker is told: the workbench (constant for a search) and one trial on it."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from trainables.config.base import Config
from trainables.config.data import DataConfig
from trainables.config.metrics import RankBy
from trainables.config.models import ModelConfig
from trainables.config.objectives import ObjectiveConfig
from trainables.config.teacher import KeptTeacher
from trainables.config.training import TrainingConfig
from trainables.config.views import ViewsConfig


class Role(StrEnum):
    """Why a student is trained."""

    SEARCH = "search"
    FINALIST = "finalist"
    BASELINE = "baseline"


class Cost(StrEnum):
    """What a student costs where it is used, and what a search may weigh against its accuracy."""

    PARAMS = "params"
    LATENCY_MS = "latency_ms"

    @property
    def metric(self) -> str:
        """Its name among the metrics of an epoch."""
        return f"student/{self.value}"


class OnlineSpec(Config):
    """A teacher that answers in each trial, in the place of a cache."""

    network: KeptTeacher
    batch_size: int = Field(ge=1, description="samples in a forward pass of it")
    autocast: bool = Field(False, description="it computes in bf16")


class StartWeights(Config):
    """The file that students start from, in the place of random weights."""

    path: str = Field(description="on every node")
    sha256: str = Field(description="of its content: what searches know it by")


class SelectionAnswers(Config):
    """The file with the teacher's logits of the selection split, with which each epoch is compared."""

    path: str = Field(description="on every node")
    teacher: str = Field(description="fingerprint of whoever gave them")
    data: str = Field(description="digest of the data that it was asked about")


class WorkbenchSpec(Config):
    """What every trial of a search shares: data, views, the teacher's cache, and where students start."""

    data: DataConfig
    views: ViewsConfig
    view_seed: int
    cache_uri: str | None = Field(description="the verified teacher cache; none for runs without a teacher")
    cache_manifest: str | None = Field(description="sha256 of its manifest, the key of the node's copy")
    online: OnlineSpec | None = Field(None, description="the teacher, where there is to be no cache")
    beside: OnlineSpec | None = Field(
        None, description="the teacher, where objectives ask for features of it that the cache does not keep"
    )
    kept: dict[str, tuple[str, ...]] | None = Field(
        None,
        description="features that are taken from the cache, by bank, and the classifier below `teacher`, "
        "whatever else its folder holds; none given: all that it has",
        exclude_if=lambda kept: kept is None,
    )
    checkpoints: str = Field(description="folder below which each trial keeps its checkpoints")
    start: StartWeights | None = Field(
        None,
        description="what students start from, controls too; none for random weights",
        exclude_if=lambda start: start is None,
    )
    selection_answers: SelectionAnswers | None = Field(
        None,
        description="none where no teacher is heard, or nobody knows what it says of the selection split",
        exclude_if=lambda answers: answers is None,
    )
    code: str | None = Field(
        None,
        description="digest of the student's code, where it is not the first that the experiment had: what "
        "was agreed on for other code does not count",
        exclude_if=lambda code: code is None,
    )


class Fork(Config):
    """Where a trial of population based training begins: another trial's weights and optimiser state."""

    trial_id: str
    epoch: int = Field(ge=1, description="the last epoch that the other trial had finished")


class TrialSpec(Config):
    """One student to train."""

    trial_id: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    role: Role
    objective: ObjectiveConfig
    student: ModelConfig
    training: TrainingConfig
    seed: int = Field(ge=0, description="of weights and batch order; finalists and control share theirs")
    fork: Fork | None = Field(None, description="goes on from another trial instead of from fresh weights")
    peers: tuple[ModelConfig, ...] = Field(
        (),
        description="networks that are trained together with the student",
        exclude_if=lambda peers: not peers,
    )
    keep_states: bool = Field(False, description="keep each state that is saved, for trials that fork off")
    rank_by: RankBy = Field(
        RankBy.ACCURACY,
        description="the figure of the selection split by which its best epoch is chosen, and itself",
        # Left out where it is accuracy, so that trials keep the digests that they had.
        exclude_if=lambda figure: figure is RankBy.ACCURACY,
    )

    @model_validator(mode="after")
    def _peers_suit_the_objective(self) -> Self:
        if self.objective.with_peers != bool(self.peers):
            raise ValueError(
                f"objective {self.objective.name} trains "
                f"{'several networks' if self.objective.with_peers else 'one network'}, and the trial has "
                f"{len(self.peers)} beside the student"
            )
        return self
