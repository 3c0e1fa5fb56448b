"""Which network teaches, and what is said of weights that were not trained here."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from trainables.config.base import Config, FiniteFloat
from trainables.config.data import Normalisation
from trainables.config.models import ModelConfig
from trainables.config.representation.preparation import PreparedPart

TO_WRITE: Final = (
    "write it below `teacher`: `normalisation: {mean: [...], std: [...]}`, of pixels in [0, 1], one number "
    "per channel, or `normalisation: data` where that is how the data set's images are normalised here"
)

StatedNormalisation = Annotated[
    Normalisation | Literal["data"] | None,
    Field(
        description="how images were normalised when the loaded weights were trained: "
        "{mean: [...], std: [...]} of pixels in [0, 1], or `data`: as the data set's are for students; "
        "default: as the checkpoint or its library says",
        # Left out where it says nothing, so that teachers trained here keep the keys that they had.
        exclude_if=lambda stated: stated is None,
    ),
]


def _distinct(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    twice = sorted({name for name in names or () if (names or ()).count(name) > 1})
    if twice:
        raise ValueError(f"{twice[0]!r} stands there twice; name each output once, in the network's order")
    return names


StatedClasses = Annotated[
    tuple[str, ...] | None,
    Field(
        min_length=2,
        description="names of the loaded network's classes, in the order of its outputs; the data's are "
        "found among them by name; default: as the checkpoint says, else the data's in their order",
        exclude_if=lambda stated: stated is None,
    ),
    AfterValidator(_distinct),
]
Pretrained = Annotated[
    bool,
    Field(
        description="the factory's network brings its weights, and is used as it is",
        exclude_if=lambda pretrained: not pretrained,
    ),
]


ONNX: Final = ".onnx"
"""How a file ends that holds a network and its weights, so that no `model` says what to build."""
OnnxOutput = Annotated[
    str | None,
    Field(
        description="which output of an ONNX file are the logits; default: the only one, or `logits`",
        exclude_if=lambda output: output is None,
    ),
]


class TeacherSource(Config):
    """A teacher's network, and where its weights come from: a file, its factory, or training here."""

    model: ModelConfig | None = Field(description="none for a network in an ONNX file")
    checkpoint: str | None
    output: OnnxOutput = None
    pretrained: Pretrained = False
    normalisation: StatedNormalisation = None
    classes: StatedClasses = None

    @property
    def is_loaded(self) -> bool:
        """Whether its weights were trained elsewhere."""
        return self.checkpoint is not None or self.pretrained


class ClassRows(Config):
    """Where the data's classes are among the outputs of a network that has others, or another order."""

    n_outputs: int = Field(ge=2)
    rows: tuple[int, ...] = Field(description="of the network's outputs, one for each class of the data")


class KeptNetwork(Config):
    """A finished network as whoever asks it loads it, on any node: teacher or student."""

    model: ModelConfig | None = Field(description="none for a network in an ONNX file")
    weights: str = Field(description="file with its weights, on every node")
    output: OnnxOutput = None
    normalisation: Normalisation | None = Field(
        None,
        description="of its images, where it is another than the data's",
        exclude_if=lambda other: other is None,
    )
    classes: ClassRows | None = Field(
        None,
        description="where they are not the data's, one by one",
        exclude_if=lambda rows: rows is None,
    )

    prepared: tuple[PreparedPart, ...] = Field(
        (), description="what it was prepared with", exclude_if=lambda parts: not parts
    )

    @property
    def files(self) -> tuple[str, ...]:
        """The files that it is loaded from."""
        return (self.weights, *(part.weights for part in self.prepared))


class Combine(StrEnum):
    """What of several teachers is averaged."""

    PROBABILITIES = "probabilities"
    LOGITS = "logits"


class KeptEnsemble(Config):
    """Several finished teachers as one: their answers are averaged, with these weights."""

    members: tuple[KeptNetwork, ...] = Field(min_length=2)
    shares: tuple[FiniteFloat, ...] = Field(description="of each member; they sum to one")
    combine: Combine

    @property
    def files(self) -> tuple[str, ...]:
        """The files that they are loaded from."""
        return tuple(member.weights for member in self.members)


KeptTeacher = KeptNetwork | KeptEnsemble
