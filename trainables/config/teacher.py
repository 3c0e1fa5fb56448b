"""Which network teaches, and what is said of weights that were not trained here."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from trainables.config.base import Config
from trainables.config.data import Normalisation
from trainables.config.models import ModelConfig

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
Pretrained = Annotated[
    bool,
    Field(
        description="the factory's network brings its weights, and is used as it is",
        exclude_if=lambda pretrained: not pretrained,
    ),
]


class TeacherSource(Config):
    """A teacher's network, and where its weights come from: a file, its factory, or training here."""

    model: ModelConfig
    checkpoint: str | None
    pretrained: Pretrained = False
    normalisation: StatedNormalisation = None

    @property
    def is_loaded(self) -> bool:
        """Whether its weights were trained elsewhere."""
        return self.checkpoint is not None or self.pretrained
