"""The model card: what one needs to use a student's files, and to trust them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from trainables.checkpoint_header import OURS
from trainables.config import Config, ModelConfig, Normalisation
from trainables.foreign_files import Unreadable, foreign_file
from trainables.local_files import file_sha256

CARD_FILE = "model_card.json"
CARD_VERSION = 2


class InputNormalisation(Normalisation):
    """How pixels become inputs: scale bytes to `pixel_range`, then (pixel - mean) / std per channel."""

    pixel_range: tuple[float, float] = (0.0, 1.0)


class Resizing(Config):
    """How an image of any size becomes one of the input's size."""

    shorter_side: int | None = Field(
        description="pixels to which the shorter side is scaled, the other in proportion; none: both sides "
        "are scaled to `centre_crop`"
    )
    interpolation: Literal["bilinear, antialiased"] = "bilinear, antialiased"
    centre_crop: int = Field(description="side in pixels of the square that is cut from the middle")


class Preparation(Config):
    """How the data set's images became arrays of the input's shape, before pixels were normalised."""

    channels: str = Field(
        description="what the channels are, in their order: grey, RGB, or the data set's own"
    )
    resizing: Resizing | None = Field(description="none: images are of the input's size in the data set")
    layout: Literal["NCHW float32"] = "NCHW float32"


class Architecture(Config):
    """What `trainables.models.build_model` needs to build the network that the weights fit."""

    network: ModelConfig
    n_classes: int
    in_channels: int
    parameters: int = Field(description="numbers that training changed")


class Lineage(Config):
    """Where a student comes from."""

    teacher: str | None = Field(
        None,
        description="sha256 of the teacher's architecture and weights; none where it learned from none",
        exclude_if=lambda teacher: teacher is None,
    )
    cache: str | None = Field(description="fingerprint of the teacher's cache")
    trial_id: str
    objective: str
    hyper_parameters: dict[str, Any]
    seed: int
    start: str | None = Field(
        None,
        description="sha256 of the file that its training began from; none for random weights",
        exclude_if=lambda start: start is None,
    )


class Latency(Config):
    """How long the student takes for one image at a time, on one kind of device."""

    median_ms: float
    p95_ms: float = Field(description="95th percentile")
    device: str = Field(description="model name of the GPU or CPU")


class CardFacts(Config):
    """What the caller states about a student; the exporter adds files, shapes and versions."""

    classes: tuple[str, ...] = Field(min_length=2, description="names in the order of the logits")
    normalisation: InputNormalisation
    metrics: dict[str, float]
    lineage: Lineage
    latency: Latency | None = Field(
        None, description="none in cards of earlier versions", exclude_if=lambda value: value is None
    )
    precision: str | None = Field(
        None,
        description="what it was trained in, and what chose that; none in cards of earlier versions",
        exclude_if=lambda value: value is None,
    )
    architecture: Architecture | None = Field(
        None, description="none in cards of version 1", exclude_if=lambda value: value is None
    )
    preparation: Preparation | None = Field(
        None, description="none in cards of version 1", exclude_if=lambda value: value is None
    )

    def metadata(self) -> dict[str, str]:
        """The facts as an ONNX model's metadata: JSON by name, with the prefix `stillhouse.`."""
        return {f"{OURS}{name}": json.dumps(value) for name, value in self.plain().items()}


class ExportedFile(Config):
    """One exported file, and its largest difference from the PyTorch student's logits."""

    file: str
    sha256: str
    bytes: int
    max_abs_difference: float


class ModelCard(CardFacts):
    """`model_card.json`: what one needs to use the files, and to trust them."""

    card_version: int = CARD_VERSION
    identity: str = Field(
        description="sha256 of weights, shape and stated facts; the same need no new export"
    )
    input_shape: tuple[int, int, int] = Field(description="channels, height, width; the batch is free")
    onnx_opset: int
    files: dict[str, ExportedFile] = Field(description="by format")
    versions: dict[str, str]


def describe_file(path: Path, difference: float) -> ExportedFile:
    """What the card says of a file on disk."""
    return ExportedFile(
        file=path.name, sha256=file_sha256(path), bytes=path.stat().st_size, max_abs_difference=difference
    )


def write_card(folder: Path, card: ModelCard) -> None:
    """Write the card beside the files that it describes."""
    (folder / CARD_FILE).write_text(json.dumps(card.plain(), indent=2) + "\n", encoding="utf-8")


def read_intact_card(folder: Path) -> ModelCard | None:
    """The card of a folder whose files are all as it says, or none."""
    try:
        with foreign_file(Unreadable):
            card = ModelCard.from_plain(json.loads((folder / CARD_FILE).read_text(encoding="utf-8")))
    except Unreadable:  # no export yet, or one of another version
        return None
    paths = [(folder / entry.file, entry.sha256) for entry in card.files.values()]
    return card if all(path.is_file() and file_sha256(path) == sha256 for path, sha256 in paths) else None
