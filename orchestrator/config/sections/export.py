"""The section `export` of an experiment file: further formats of the champion's files."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from trainables.config import Config
from trainables.config.base import FiniteFloat


class AwareConfig(Config):
    """How the champion is trained on before it becomes int8."""

    epochs: int = Field(5, ge=1, le=1000, description="passes over the training split")
    lr_factor: FiniteFloat = Field(
        0.01,
        gt=0,
        le=1,
        description="of the champion's own learning rate, from which it falls to 0 along half a cosine",
    )


def _or_flag(value: Any) -> Any:
    """`true` stands for the defaults, `false` for nothing."""
    if isinstance(value, bool):
        return {} if value else None
    return value


class ExportConfig(Config):
    """In which formats the champion is exported beside safetensors, ONNX and torch.export."""

    int8: bool = Field(
        False, description="ONNX quantised to int8, calibrated on the selection split, and measured there"
    )
    int8_aware: Annotated[AwareConfig | bool | None, BeforeValidator(_or_flag)] = Field(
        None,
        description="ONNX of int8 after some more epochs of the champion's own training, in which it "
        "computes as that file will: true, or {epochs: 5, lr_factor: 0.01}",
        # Left out where it says nothing, so that other experiments keep the fingerprints that they had.
        exclude_if=lambda aware: aware is None,
    )
    with_preprocessing: bool = Field(
        False,
        description="ONNX that takes uint8 pictures of any size, and resizes and normalises them itself",
    )

    @property
    def aware(self) -> AwareConfig | None:
        """How it is trained for int8; none where that is not asked for."""
        return self.int8_aware if isinstance(self.int8_aware, AwareConfig) else None
