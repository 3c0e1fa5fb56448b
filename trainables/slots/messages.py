"""What travels between driver, broker and slots: jobs one way, messages the other; no tensors."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from trainables.config import (
    Config,
    Cost,
    KeptTeacher,
    ModelConfig,
    OnlineSpec,
    Split,
    TrialSpec,
    WorkbenchSpec,
)
from trainables.config.metrics import KEPT, RankBy


class TrainJob(Config):
    """Train one student."""

    kind: Literal["train"] = "train"
    workbench: WorkbenchSpec
    trial: TrialSpec
    costs: tuple[Cost, ...] = Field((), description="of the student, told with every epoch's metrics")
    fake_quantised: str | None = Field(
        None,
        description="a file of weights: they are what the student begins with, and from there on it computes "
        "as an int8 file would",
        exclude_if=lambda weights: weights is None,
    )

    @property
    def job_id(self) -> str:
        """The trial's id: a trial is one job, however often it is handed out."""
        return self.trial.trial_id


class EvaluateJob(Config):
    """Evaluate kept weights on a split."""

    kind: Literal["evaluate"] = "evaluate"
    job_id: str
    workbench: WorkbenchSpec
    network: KeptTeacher
    split: Split
    teacher: OnlineSpec | None = Field(None, description="whom the answers are compared with, if anybody")
    rank_by: RankBy = Field(
        RankBy.ACCURACY,
        description="the figure that ranks students, told too",
        exclude_if=lambda figure: figure is RankBy.ACCURACY,
    )
    answers: str | None = Field(
        None, description="the file in which its answers, image by image, are kept beside the teacher's"
    )


class ProfileJob(Config):
    """Measure parameters, size and latency of a network."""

    kind: Literal["profile"] = "profile"
    job_id: str
    workbench: WorkbenchSpec
    student: ModelConfig | KeptTeacher = Field(
        description="an architecture, or a teacher that is more than one: an ONNX file, or several"
    )


class Stage(StrEnum):
    """What is done before students are trained, on some worker."""

    SPLIT = "split"
    TEACHER = "teacher"
    PREPARATION = "preparation"
    ENSEMBLE = "ensemble"
    ANSWERS = "answers"
    SHARDS = "shards"


class StageJob(Config):
    """Do a stage, or a part of one; what it makes is in the last message."""

    kind: Literal["stage"] = "stage"
    job_id: str
    stage: Stage
    request: dict[str, Any] = Field(description="what the stage is asked for, as plain data")


Job = TrainJob | EvaluateJob | ProfileJob | StageJob
JOB_KINDS: dict[str, type[TrainJob] | type[EvaluateJob] | type[ProfileJob] | type[StageJob]] = {
    "train": TrainJob,
    "evaluate": EvaluateJob,
    "profile": ProfileJob,
    "stage": StageJob,
}


class End(StrEnum):
    """How a job ended."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"


class Raised(Config):
    """An error of a stage, which is raised again in the driver."""

    kind: str = Field(description="the name of its class")
    texts: tuple[str, ...]
    trace: str = Field(description="where it was raised, for one that was not raised on purpose")


class Message(Config):
    """One report of a job; the last one has an `end`.

    The slot makes it, and it travels as it is: broker, proxy and driver read its fields and parse nothing.
    """

    epoch: int = Field(0, ge=0, description="counted from 1; 0 for jobs without epochs")
    metrics: dict[str, float] = Field({}, description="plain numbers under split/name")
    end: End | None = None
    reason: str | None = None
    best_epoch: int | None = None
    best: dict[str, float] = {}
    checkpoint: str | None = Field(None, description="weights of the best epoch")
    device: str | None = Field(None, description="model name of the device that a profile was measured on")
    precision: str | None = Field(
        None, description="what the epoch was trained in, and what chose that, as `bf16 (table 1)`"
    )
    made: dict[str, Any] | None = Field(None, description="what a stage made, as plain data")
    raised: Raised | None = Field(None, description="why a stage failed")
    hopeless: bool = Field(False, description="no job can go on, and none is to blame: storage or data")

    def figure(self, rank_by: RankBy) -> float | None:
        """The figure of the selection split that ranks students; None for a job without it."""
        return self.metrics.get(rank_by.metric)

    @property
    def seconds(self) -> float:
        """How long the epoch took, in seconds; 0 where that is not known."""
        return self.metrics.get("seconds", 0.0)

    @property
    def images_per_s(self) -> float | None:
        """Training images per second; None for a job that trains nothing."""
        return self.metrics.get("train/images_per_s")

    @property
    def kept_fractions(self) -> dict[str, float]:
        """By mask of the objective, as `kept_weak`, the mean fraction of samples that it kept, in [0, 1]."""
        return {
            name.partition("/")[2]: value for name, value in self.metrics.items() if name.startswith(KEPT)
        }


class Lease(Config):
    """A job that a slot holds; `attempt` tells a slot that lost it from the one that has it now."""

    job: dict[str, Any]
    attempt: int
    heard: int = Field(0, ge=0, description="epochs of it that were passed on already")
    alone: bool = Field(
        False, description="a worker died in it: it is trained alone, so that no other student dies with it"
    )
