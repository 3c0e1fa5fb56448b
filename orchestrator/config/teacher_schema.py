"""What an experiment file says of its teacher, or of several."""

from __future__ import annotations

from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from trainables.config import Config, ModelConfig, TeacherSource, TrainingConfig
from trainables.config.base import FiniteFloat
from trainables.config.checkpoints import is_elsewhere
from trainables.config.representation.preparation import PreparedTraining
from trainables.config.teacher import ONNX, OnnxOutput, Pretrained, StatedClasses, StatedNormalisation
from trainables.errors import ConfigError

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
    prepared: PreparedTraining | None = Field(
        None,
        description="joint_branches: trained together with classifiers of class and turn on its stages, "
        "which hsakd hears; student_classifier: a student is trained first, and the teacher with its "
        "classifier in place of its own; default: by the labels",
        exclude_if=lambda prepared: prepared is None,
    )
    preparation: TrainingConfig | None = Field(
        None,
        description="how a finished teacher is prepared for objectives that ask for it (sskd, hsakd): parts "
        "beside it are trained, while it stays as it is; default: as their papers have it",
        exclude_if=lambda training: training is None,
    )

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
        return self

    @model_validator(mode="after")
    def _fits_its_source(self) -> Self:
        if self.model is not None:
            self.model.require_published(self.checkpoint)
        if self.training.freeze or self.training.lr_groups:
            raise ValueError("`freeze` and `lr_groups` are for students; a teacher is trained as a whole")
        if self.prepared is not None and (self.imported or self.checkpoint or self.pretrained):
            raise ValueError(
                f"`prepared: {self.prepared}` says how the teacher is trained here; leave it out, or train "
                "it: without `checkpoint`, `pretrained` and `imported`"
            )
        if self.preparation is not None and (self.imported or self.is_onnx):
            raise ValueError("`preparation` is of a network of PyTorch; this teacher has none: leave it out")
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


class MemberConfig(TeacherConfig):
    """One of several teachers."""

    weight: FiniteFloat = Field(1.0, gt=0, description="of its answers in the mean, beside the others'")

    @model_validator(mode="after")
    def _has_a_network(self) -> Self:
        if self.imported:
            raise ValueError(
                "`imported` logits are of one teacher; give several a `model` or an ONNX file each"
            )
        return self

    @property
    def alone(self) -> TeacherConfig:
        """The same teacher without the others."""
        return TeacherConfig.from_plain(self.model_dump(mode="json", exclude={"weight"}))


NOBODY: Final = TeacherConfig.model_construct()
"""Stands in the place of `teacher` where a file has `teachers`, or none at all: it has no network."""
