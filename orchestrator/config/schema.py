"""The experiment file: data, teacher, student, views, recipe, budget, cluster shape, where results go."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from orchestrator.config.constraints import parse_constraints
from orchestrator.config.peers import PeersConfig, networks_in
from orchestrator.config.picking.figures import figure_named, figures_named
from orchestrator.config.registry_name import registrable
from orchestrator.config.sections.export import ExportConfig
from orchestrator.config.teacher_schema import NOBODY, ExpectedAccuracy, MemberConfig, TeacherConfig
from orchestrator.config.tracking_uri import absolute_tracking_uri
from trainables.config import (
    CacheConfig,
    Combine,
    Config,
    DataConfig,
    ModelConfig,
    StudentConfig,
    TrainingConfig,
    ViewsConfig,
)
from trainables.config.base import Scalar
from trainables.config.teacher import ONNX, Pretrained, StatedClasses, StatedNormalisation

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")


class EqualCompute(StrEnum):
    """Which finalists have a control of equal compute beside that of equal epochs."""

    AUTO = "auto"
    """Those that hear no teacher: what they gain could be what their further networks or passes compute."""
    ALWAYS = "always"
    NEVER = "never"


class BudgetConfig(Config):
    """How much is tried, and how often the best is repeated."""

    trials: int = Field(16, ge=1, le=1_000_000, description="students that the search proposes")
    finalists: int = Field(2, ge=1, le=100, description="best students that are trained again")
    seeds: int = Field(3, ge=1, le=100, description="seeds of each finalist and control")
    equal_compute: EqualCompute = Field(
        EqualCompute.AUTO,
        description="which finalists have a control with as much compute too, where an epoch computes more "
        "than 1.25 of cross-entropy's: auto (those that hear no teacher), always or never; it takes `seeds` "
        "trainings",
        exclude_if=lambda mode: mode is EqualCompute.AUTO,
    )
    smoothed_control: bool = Field(
        False,
        description="whether beside each control the same students are trained with label smoothing of 0.1 "
        "too; it takes as many trainings as the controls do",
        exclude_if=lambda wanted: not wanted,
    )
    max_failed_trials: int = Field(10, ge=1, description="failed trials after which the search stops")


class ClusterConfig(Config):
    """Shape of the slots; everything else is read off the cluster."""

    slots: int | None = Field(
        None, ge=1, le=10_000, description="slots, each for one student at a time; default: what fits"
    )
    workers_per_slot: int = Field(
        1, ge=1, le=1024, description="workers that train one student together, sharing each batch"
    )
    students_per_slot: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = Field(
        "auto",
        description="students of one shape that a slot trains at once, as one computation: auto (as many as "
        "are fastest when a few steps are tried, 1 where that is) or a number; with 1 the same spec and seed "
        "give the same student to the last bit",
        exclude_if=lambda students: students == "auto",
    )
    cpus_per_worker: int = Field(1, ge=1, le=1024, description="CPUs, and threads, of a worker")
    gpus_per_worker: float | None = Field(
        None,
        ge=0,
        le=64,
        allow_inf_nan=False,
        description="fractions share a GPU; default: 1 when the cluster has GPUs, else 0",
    )


class PickConfig(Config):
    """What a champion must satisfy, and by what it is chosen among those that do."""

    where: str | None = Field(
        None,
        description='constraints, as "latency_ms <= 2 and params <= 1e6", with and, or and parentheses; '
        "selection_accuracy is a fraction, the mean over the seeds of a finalist, of the figure that "
        "search.rank_by of the space names",
    )
    rank: str | None = Field(
        None,
        description="the figure by which the champion is the best of the finalists; default: "
        "selection_accuracy",
        exclude_if=lambda rank: rank is None,
    )
    pareto: str | None = Field(
        None,
        description="figures separated by commas, as accuracy,latency_ms: the champion is one of the "
        "finalists that no other beats in all of them",
        exclude_if=lambda pareto: pareto is None,
    )
    model_name: str | None = Field(None, description="name in the model registry; default: stillhouse-<name>")

    @field_validator("where")
    @classmethod
    def _known_constraints(cls, where: str | None) -> str | None:
        if where is not None:
            parse_constraints(where)
        return where

    @field_validator("rank")
    @classmethod
    def _known_figure(cls, rank: str | None) -> str | None:
        return rank if rank is None else figure_named(rank)

    @field_validator("pareto")
    @classmethod
    def _known_figures(cls, pareto: str | None) -> str | None:
        return pareto if pareto is None else ",".join(figures_named(pareto))

    @field_validator("model_name")
    @classmethod
    def _registrable(cls, name: str | None) -> str | None:
        return name if name is None else registrable(name)


class RecordConfig(Config):
    """Where MLflow keeps the record."""

    tracking_uri: str | None = Field(
        None, description="http(s) server or sqlite:/// URI; default: sqlite in the output folder"
    )
    experiment_name: str | None = Field(
        None, min_length=1, max_length=500, description="default: stillhouse/<name>"
    )

    @field_validator("tracking_uri")
    @classmethod
    def _is_a_store(cls, uri: str | None) -> str | None:
        if uri is not None:
            absolute_tracking_uri(uri)
        return uri


class PairConfig(Config):
    """Another teacher and another student, for the same experiment."""

    teacher: ModelConfig
    student: StudentConfig
    checkpoint: str | None = Field(None, description="of the teacher; without it the teacher is trained")
    pretrained: Pretrained = False
    normalisation: StatedNormalisation = None
    classes: StatedClasses = None
    expected_accuracy: ExpectedAccuracy = None
    training: dict[str, Scalar] = Field({}, description="what is other in the student's recipe")

    @field_validator("checkpoint")
    @classmethod
    def _is_of_a_network(cls, checkpoint: str | None) -> str | None:
        if checkpoint is not None and checkpoint.endswith(ONNX):
            raise ValueError("a pair cannot hold an ONNX teacher; give it an experiment of its own")
        return checkpoint


def _well_named(pairs: dict[str, PairConfig]) -> dict[str, PairConfig]:
    for name in pairs:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"the name of pair {name!r}: allowed are up to 60 letters, digits, dots, - and _, beginning "
                "with a letter or digit"
            )
    return pairs


Pairs = Annotated[dict[str, PairConfig], AfterValidator(_well_named)]


class ExperimentConfig(Config):
    """One experiment, from data to champion."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$", description="name of the experiment")
    out: str | None = Field(None, min_length=1, description="output folder; default: out/<name>")
    seed: int = Field(0, ge=0, lt=2**31, description="every other seed derives from it")
    data: DataConfig
    teacher: TeacherConfig = Field(
        NOBODY,
        description="what students learn from; a space whose objectives all do without needs none",
        exclude_if=lambda teacher: teacher == NOBODY,
    )
    teachers: tuple[MemberConfig, ...] = Field(
        (),
        min_length=2,
        description="several teachers in the place of `teacher`: the cache holds the mean of their answers",
        exclude_if=lambda teachers: not teachers,
    )
    combine: Combine = Field(
        Combine.PROBABILITIES,
        description="what of several teachers is averaged: their probabilities, or their logits",
        exclude_if=lambda combine: combine is Combine.PROBABILITIES,
    )
    student: StudentConfig
    peers: PeersConfig = None
    views: ViewsConfig
    training: TrainingConfig = TrainingConfig()
    space: str = Field(description="a shipped search space by name, or the path of a file")
    cache: CacheConfig = CacheConfig()
    budget: BudgetConfig = BudgetConfig()
    cluster: ClusterConfig = ClusterConfig()
    pick: PickConfig = PickConfig()
    export: ExportConfig = Field(
        ExportConfig(),
        description="further formats of the champion's files",
        # Left out where it says nothing, as below.
        exclude_if=lambda export: export == ExportConfig(),
    )
    record: RecordConfig = RecordConfig()
    pair: str | None = Field(
        None,
        description="which of `pairs` it is about; default: teacher and student as they stand in the file",
        # Left out where it says nothing, so that other experiments keep the fingerprints that they had.
        exclude_if=lambda pair: pair is None,
    )
    pairs: Pairs = Field(
        {},
        description="by name, pairs of teacher and student that share the rest of the file",
        exclude_if=lambda pairs: not pairs,
    )

    @model_validator(mode="after")
    def _one_section_teaches(self) -> Self:
        if self.teacher != NOBODY and self.teachers:
            raise ValueError("give either `teacher`, or `teachers`, a list of two or more, not both")
        return self

    @property
    def has_teacher(self) -> bool:
        """Whether the file has one, or several; a space that asks for one is refused without."""
        return bool(self.each_teacher)

    @property
    def each_teacher(self) -> tuple[TeacherConfig, ...]:
        """The teacher, or each of several; nothing where the file has none."""
        return self.teachers or (() if self.teacher == NOBODY else (self.teacher,))

    @property
    def unlabelled_in_words(self) -> str:
        """What a batch of the file's recipe holds of unlabelled images; nothing where there are none."""
        unlabelled, size = self.data.unlabelled, self.training.batch_size
        if unlabelled is None:
            return ""
        rows = unlabelled.rows_of(size, together=self.training.sampling.together)
        return f"; unlabelled images of {unlabelled.source}: {rows} of each batch of {size}"

    @property
    def out_folder(self) -> str:
        """The output folder as written, or its default."""
        return self.out or f"out/{self.name}"

    @property
    def factories(self) -> tuple[str, ...]:
        """Of data, unlabelled images, teachers and student, each once."""
        return self._factories(self.each_teacher)

    @property
    def factories_without_teacher(self) -> tuple[str, ...]:
        """Of data, unlabelled images and student, each once."""
        return self._factories(())

    def _factories(self, teachers: tuple[TeacherConfig, ...]) -> tuple[str, ...]:
        data = self.data
        paths = (
            data.factory,
            data.unlabelled.factory if data.unlabelled else None,
            *(teacher.model.factory for teacher in teachers if teacher.model),
            self.student.factory,
            *(peer.factory for peer in networks_in(self.peers)),
        )
        return tuple(dict.fromkeys(path for path in paths if path is not None))
