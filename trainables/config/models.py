"""Networks: a name from the table, or the user's own factory."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import Field, model_validator
from pydantic.config import JsonDict

from trainables.config.base import Config, FactoryPath, Scalar
from trainables.config.checkpoints import is_published


class ModelName(StrEnum):
    """Networks that Stillhouse builds by name (compact CIFAR families of the literature)."""

    MLP = "mlp"
    CONVNET = "convnet"
    RESNET8 = "resnet8"
    RESNET14 = "resnet14"
    RESNET20 = "resnet20"
    RESNET32 = "resnet32"
    RESNET56 = "resnet56"
    RESNET110 = "resnet110"
    RESNET8X4 = "resnet8x4"
    RESNET32X4 = "resnet32x4"
    WRN_16_1 = "wrn_16_1"
    WRN_16_2 = "wrn_16_2"
    WRN_40_1 = "wrn_40_1"
    WRN_40_2 = "wrn_40_2"
    VGG8 = "vgg8"
    VGG13 = "vgg13"
    RESNET50 = "resnet50"
    MOBILENETV2 = "mobilenetv2"
    SHUFFLENETV1 = "shufflenetv1"
    SHUFFLENETV2 = "shufflenetv2"
    TORCHVISION = "torchvision"
    TIMM = "timm"
    TRANSFORMERS = "transformers"


LIBRARIES: Final = frozenset({ModelName.TORCHVISION, ModelName.TIMM, ModelName.TRANSFORMERS})
"""Names of libraries, whose networks have names of their own: `variant`."""
_NAMES: Final = "`name: torchvision`, `timm` or `transformers`"


FeatureName = Annotated[
    str,
    Field(
        pattern=r"^(stem|stage[1-9]\d?(\.pre)?|last|embedding|first_conv|tokens|class_logits|distillation_logits)$"
    ),
]
"""The features that a network may have; `trainables.models.features.FeatureTap` says what each is."""
_STAGES: Final = [f"stage{number}{behind}" for behind in ("", ".pre") for number in range(1, 10)]
_FEATURES: Final[JsonDict] = {
    "propertyNames": {
        "description": "stem, stage1 and so on, stage1.pre and so on, last, embedding, first_conv, tokens, "
        "class_logits, distillation_logits",
        "examples": [
            *("stem", "last", "embedding", "first_conv", "tokens", "class_logits", "distillation_logits"),
            *_STAGES,
        ],
    }
}
"""Of a mapping by such names: which are allowed, and some, of which one may have been meant."""


class ModelConfig(Config):
    """A network that turns BCHW images into BxC logits."""

    name: ModelName | None = Field(None, description="a network that Stillhouse knows")
    factory: FactoryPath | None = Field(
        None,
        description='"module:function"; called with n_classes=..., num_classes=... or neither, whichever it '
        "names, and with `arguments`; gives a Module",
    )
    arguments: dict[str, Scalar] = Field(
        {},
        description="keyword arguments of the factory or of the library's builder; with transformers, values "
        "of the network's configuration",
    )
    width: int | None = Field(
        None, ge=1, le=4096, description="channels of the first stage (units of an mlp); default: the paper's"
    )
    resolution: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="side in pixels to which images are resized before the network, as its first layer, so "
        "that exported files still take the data's own size; default: not resized",
    )
    cosine_head: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="units of a linear layer with ReLU, with a classifier by cosines behind it, in the place "
        "of the network's linear classifier; for objective cbd, as wide as the teacher's embedding",
        exclude_if=lambda value: value is None,
    )
    output: int | str | None = Field(
        None,
        description="which output of a factory's network are the logits, by name or place, where it returns "
        "no tensor; default: those called `logits`, or the only one with a number for each class",
        exclude_if=lambda value: value is None,
    )
    variant: str | None = Field(
        None,
        min_length=1,
        description="with name torchvision or timm: the library's own name, as resnet18; with name "
        "transformers: a folder that save_pretrained wrote, or a name on the hub, as microsoft/resnet-18",
    )
    features: dict[FeatureName, str] = Field(
        {},
        description="which parts of the network give the features that objectives ask for, by module path, "
        "as {stage1: layer2, stage2: layer3}; stages named here are all that there are; default: they are "
        "found",
        exclude_if=lambda features: not features,
        json_schema_extra=_FEATURES,
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.name is None) == (self.factory is None):
            raise ValueError("give exactly one of `name` and `factory`")
        if self.is_of_library != (self.variant is not None):
            raise ValueError(f"`variant` goes with {_NAMES}, which need it")
        if self.arguments and self.factory is None and not self.is_of_library:
            raise ValueError(f"`arguments` are for a `factory`, or for {_NAMES}")
        if self.output is not None and self.factory is None:
            raise ValueError("`output` is for a `factory`; the logits of a network by name are known")
        if self.width is not None and (self.factory or self.is_of_library):
            raise ValueError("`width` is for networks by name; give a factory or a library `arguments`")
        return self

    @property
    def is_of_library(self) -> bool:
        """Whether a library builds it, by the name that is its `variant`."""
        return self.name in LIBRARIES

    @property
    def unnamed(self) -> ModelConfig:
        """The same network without names for its parts: what it answers does not hang on them."""
        return self.with_overrides(features={}) if self.features else self

    def require_published(self, checkpoint: str | None) -> None:
        """Refuse published weights for a network that no library publishes.

        Raises:
            ValueError: it is none.
        """
        if is_published(checkpoint) and not self.is_of_library:
            raise ValueError(
                f"`checkpoint: published` goes with {_NAMES}; a file of that name is ./published"
            )

    @property
    def folder(self) -> Path | None:
        """The folder of transformers that it is built from; none where it is none."""
        is_folder = self.name is ModelName.TRANSFORMERS and Path(str(self.variant)).is_absolute()
        return Path(str(self.variant)) if is_folder else None


class StudentConfig(ModelConfig):
    """The student of an experiment: a network, and the weights that it starts from."""

    checkpoint: str | None = Field(
        None,
        description="weights that every student and control starts from: .safetensors, or .pt read with "
        "weights_only; a folder of transformers; `published` (or `published:TAG`): those of its library; or "
        "models:/NAME/VERSION, models:/NAME@ALIAS, runs:/RUN/PATH in MLflow; a head of other classes stays "
        "fresh; default: random weights",
        exclude_if=lambda checkpoint: checkpoint is None,
    )

    @model_validator(mode="after")
    def _publishes(self) -> Self:
        self.require_published(self.checkpoint)
        return self

    @property
    def network(self) -> ModelConfig:
        """The network alone: what a search varies, and what its trials are known by."""
        return ModelConfig.from_plain(self.model_dump(mode="json", exclude={"checkpoint"}))
