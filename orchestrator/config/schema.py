"""The experiment file: data, teacher, student, views, recipe, budget, cluster shape, where results go."""

from __future__ import annotations

import re
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from orchestrator.config.constraints import parse_constraints
from orchestrator.config.registry_name import registrable
from orchestrator.config.tracking_uri import absolute_tracking_uri
from trainables.config import (
    CacheConfig,
    Config,
    DataConfig,
    ModelConfig,
    StudentConfig,
    TeacherSource,
    TrainingConfig,
    ViewsConfig,
)
from trainables.config.base import FiniteFloat, Scalar
from trainables.config.checkpoints import is_elsewhere
from trainables.config.teacher import ONNX, OnnxOutput, Pretrained, StatedClasses, StatedNormalisation
from trainables.errors import ConfigError

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")


ExpectedAccuracy = Annotated[
    FiniteFloat | None,
    Field(
        gt=0,
        le=1,
        description="fraction of the selection split that the teacher must get right, or the run stops",
        exclude_if=lambda expected: expected is None,
    ),
]


class TeacherConfig(Config):
    """A teacher that is trained here, or loaded from a checkpoint, or of which only logits are known."""

    model: ModelConfig | None = None
    checkpoint: str | None = Field(
        None,
        description=".safetensors, or .pt read with weights_only; .onnx, which needs no `model`; a folder of "
        "transformers; `published` (or `published:TAG`): those of its library; or models:/NAME/VERSION, "
        "models:/NAME@ALIAS, runs:/RUN/PATH in MLflow; without it the teacher is trained",
    )
    output: OnnxOutput = None
    imported: bool = Field(
        False, description="no network: its logits were brought by `stillhouse cache import`"
    )
    pretrained: Pretrained = False
    normalisation: StatedNormalisation = None
    classes: StatedClasses = None
    expected_accuracy: ExpectedAccuracy = None
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.is_onnx and self.model is not None:
            raise ValueError("an ONNX file (`checkpoint`) holds its network: leave out `model`")
        if self.is_onnx and is_elsewhere(self.checkpoint):
            raise ValueError("an ONNX file (`checkpoint`) is given by its path: fetch it first")
        if not self.is_onnx and self.imported == (self.model is not None):
            raise ValueError(
                "give a `model`, or `imported: true` where only its logits are known, not both; a "
                "`checkpoint` that is an ONNX file needs neither"
            )
        if self.output is not None and not self.is_onnx:
            raise ValueError(
                "`output` is for a `checkpoint` that is an ONNX file; a factory's stands in `model`"
            )
        if self.imported and self.checkpoint is not None:
            raise ValueError("`checkpoint` goes with a `model`; imported logits have no network")
        if self.imported and self.expected_accuracy is not None:
            raise ValueError("`expected_accuracy` goes with a `model`; imported logits have no network")
        if self.pretrained and (self.model is None or self.model.factory is None or self.checkpoint):
            raise ValueError(
                "`pretrained` is for a `model` by `factory` that brings its weights, without a `checkpoint`"
            )
        if self.model is not None:
            self.model.require_published(self.checkpoint)
        if self.training.freeze or self.training.lr_groups:
            raise ValueError("`freeze` and `lr_groups` are for students; a teacher is trained as a whole")
        if self.normalisation is not None and self.checkpoint is None and not self.pretrained:
            raise ValueError(
                "`normalisation` is for weights that were trained elsewhere (`checkpoint`, or `pretrained`); "
                "a teacher that is trained here has that of the data (`data.mean` and `data.std`)"
            )
        if self.classes is not None and self.checkpoint is None and not self.pretrained:
            raise ValueError(
                "`classes` is for weights that were trained elsewhere (`checkpoint`, or `pretrained`); a "
                "teacher that is trained here has those of the data"
            )
        return self

    @property
    def is_onnx(self) -> bool:
        """Whether its network and weights are in an ONNX file."""
        return self.checkpoint is not None and self.checkpoint.endswith(ONNX)

    @property
    def source(self) -> TeacherSource:
        """The network, and where its weights come from.

        Raises:
            ConfigError: the teacher's logits were imported.
        """
        return TeacherSource(
            model=None if self.is_onnx else self.network,
            checkpoint=self.checkpoint,
            output=self.output,
            pretrained=self.pretrained,
            normalisation=self.normalisation,
            classes=self.classes,
        )

    @property
    def network(self) -> ModelConfig:
        """The model.

        Raises:
            ConfigError: the teacher's logits were imported, or its network is in an ONNX file.
        """
        if self.is_onnx:
            raise ConfigError("the teacher has no network of PyTorch: it is an ONNX file")
        if self.model is None:
            raise ConfigError("the teacher has no network: its logits were imported")
        return self.model


class BudgetConfig(Config):
    """How much is tried, and how often the best is repeated."""

    trials: int = Field(16, ge=1, le=1_000_000, description="students that the search proposes")
    finalists: int = Field(2, ge=1, le=100, description="best students that are trained again")
    seeds: int = Field(3, ge=1, le=100, description="seeds of each finalist and control")
    max_failed_trials: int = Field(10, ge=1, description="failed trials after which the search stops")


class ClusterConfig(Config):
    """Shape of the slots; everything else is read off the cluster."""

    slots: int | None = Field(
        None, ge=1, le=10_000, description="slots, each for one student at a time; default: what fits"
    )
    workers_per_slot: int = Field(
        1, ge=1, le=1024, description="workers that train one student together, sharing each batch"
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
    """What a champion must satisfy."""

    where: str | None = Field(
        None,
        description='constraints, as "latency_ms <= 2 and params <= 1e6"; selection_accuracy is a fraction, '
        "the mean over the seeds of a finalist",
    )
    model_name: str | None = Field(None, description="name in the model registry; default: stillhouse-<name>")

    @field_validator("where")
    @classmethod
    def _known_constraints(cls, where: str | None) -> str | None:
        if where is not None:
            parse_constraints(where)
        return where

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
    teacher: TeacherConfig
    student: StudentConfig
    views: ViewsConfig
    training: TrainingConfig = TrainingConfig()
    space: str = Field(description="a shipped search space by name, or the path of a file")
    cache: CacheConfig = CacheConfig()
    budget: BudgetConfig = BudgetConfig()
    cluster: ClusterConfig = ClusterConfig()
    pick: PickConfig = PickConfig()
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

    @property
    def unlabelled_in_words(self) -> str:
        """What a batch of the file's recipe holds of unlabelled images; nothing where there are none."""
        unlabelled, size = self.data.unlabelled, self.training.batch_size
        if unlabelled is None:
            return ""
        return (
            f"; unlabelled images of {unlabelled.source}: {unlabelled.rows_of(size)} of each batch of {size}"
        )

    @property
    def out_folder(self) -> str:
        """The output folder as written, or its default."""
        return self.out or f"out/{self.name}"

    @property
    def factories(self) -> tuple[str, ...]:
        """Of data, unlabelled images, teacher and student, each once."""
        data, teacher = self.data, self.teacher.model
        paths = (
            data.factory,
            data.unlabelled.factory if data.unlabelled else None,
            teacher.factory if teacher else None,
            self.student.factory,
        )
        return tuple(dict.fromkeys(path for path in paths if path is not None))
