"""The champion's exported files, as `summary.json` tells of them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainables.config import Config
from trainables.export.model_card import FileLatency

ExportFormat = Literal[
    "safetensors",
    "onnx",
    "onnx_data",
    "torch_export",
    "onnx_int8",
    "onnx_int8_aware",
    "onnx_with_preprocessing",
    "torch_export_with_preprocessing",
]


class Exported(Config):
    """One exported file, compared with the PyTorch student on real inputs."""

    path: str
    max_abs_difference: float = Field(description="of logits; the largest over all inputs")
    agreement: float | None = Field(
        None,
        description="share of inputs to which both give the same class; none in an earlier version's",
        exclude_if=lambda value: value is None,
    )
    images: int | None = Field(
        None,
        description="inputs that they were compared on; none as above",
        exclude_if=lambda value: value is None,
    )
    accuracy: float | None = Field(
        None,
        description="on the selection split, of a file that answers otherwise than the student, as int8 does",
        exclude_if=lambda value: value is None,
    )
    latency: FileLatency | None = Field(
        None, description="in the runtime that it is for", exclude_if=lambda value: value is None
    )
