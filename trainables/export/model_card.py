"""The model card: what one needs to use a student's files, and to trust them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from trainables.checkpoint_header import OURS
from trainables.config import Config, ModelConfig, Normalisation
from trainables.foreign_files import Unreadable, foreign_file
from trainables.local_files import file_sha256, replace_text

CARD_FILE = "model_card.json"
CARD_VERSION = 3


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
    jpeg_in_part: bool = Field(
        False,
        description="a JPEG four times as large as wanted, or more, was decoded at a part of its size",
        exclude_if=lambda value: not value,
    )


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
    """How long the PyTorch student takes for one image, and for 64 at once, on one kind of device."""

    median_ms: float
    p95_ms: float = Field(description="95th percentile")
    device: str = Field(description="model name of the GPU or CPU")
    batch_64_median_ms: float | None = Field(
        None,
        description="of the whole batch; none in cards of earlier versions, as below",
        exclude_if=lambda value: value is None,
    )
    batch_64_p95_ms: float | None = Field(None, exclude_if=lambda value: value is None)
    threads: int | None = Field(
        None, description="of a CPU that computed", exclude_if=lambda value: value is None
    )


class FileLatency(Config):
    """How long a file takes in the runtime that it is for: medians and 95th percentiles, in milliseconds."""

    batch_1_median_ms: float = Field(description="of one image")
    batch_1_p95_ms: float
    batch_64_median_ms: float = Field(description="of 64 images at once, all together")
    batch_64_p95_ms: float
    device: str = Field(description="model name of the CPU or GPU")
    threads: int = Field(description="of the CPU that computed")
    runtime: str = Field(description="and its version, as onnxruntime 1.21.0")


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
    """One exported file, compared with the PyTorch student on real images."""

    file: str
    sha256: str
    bytes: int
    max_abs_difference: float = Field(description="of a logit")
    agreement: float | None = Field(
        None,
        description="share of images to which both give the same class; none in cards of earlier versions",
        exclude_if=lambda value: value is None,
    )
    images: int | None = Field(
        None,
        description="how many they were compared on; none as above",
        exclude_if=lambda value: value is None,
    )
    accuracy: float | None = Field(
        None,
        description="on the selection split, of a file that answers otherwise than the student, as int8 does",
        exclude_if=lambda value: value is None,
    )
    latency: FileLatency | None = Field(
        None, description="where it was measured", exclude_if=lambda value: value is None
    )


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


class Comparison(Config):
    """What a comparison with the PyTorch student found."""

    max_abs_difference: float
    agreement: float
    images: int


def describe_file(path: Path, compared: Comparison) -> ExportedFile:
    """What the card says of a file on disk."""
    return ExportedFile(file=path.name, sha256=file_sha256(path), bytes=path.stat().st_size, **dict(compared))


def write_card(folder: Path, card: ModelCard) -> None:
    """Write the card beside the files that it describes, in the place of an earlier one at once."""
    replace_text(folder / CARD_FILE, json.dumps(card.plain(), indent=2) + "\n")


def read_intact_card(folder: Path) -> ModelCard | None:
    """The card of a folder whose files are all as it says, or none."""
    try:
        with foreign_file(Unreadable):
            card = ModelCard.from_plain(json.loads((folder / CARD_FILE).read_text(encoding="utf-8")))
    except Unreadable:  # no export yet, or one of another version
        return None
    paths = [(folder / entry.file, entry.sha256) for entry in card.files.values()]
    return card if all(path.is_file() and file_sha256(path) == sha256 for path, sha256 in paths) else None
