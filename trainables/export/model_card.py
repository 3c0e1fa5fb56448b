"""The model card: what one needs to use a student's files, and to trust them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import Field

from trainables.config import Config

CARD_FILE = "model_card.json"
CARD_VERSION = 1


class Normalisation(Config):
    """How pixels become inputs: scale bytes to `pixel_range`, then (pixel - mean) / std per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixel_range: tuple[float, float] = (0.0, 1.0)


class Lineage(Config):
    """Where a student comes from."""

    teacher: str | None = Field(description="sha256 of the teacher's architecture and weights")
    cache: str | None = Field(description="fingerprint of the teacher's cache")
    trial_id: str
    objective: str
    hyper_parameters: dict[str, Any]
    seed: int


class Latency(Config):
    """How long the student takes for one image at a time, on one kind of device."""

    median_ms: float
    p95_ms: float = Field(description="95th percentile")
    device: str = Field(description="model name of the GPU or CPU")


class CardFacts(Config):
    """What the caller states about a student; the exporter adds files, shapes and versions."""

    classes: tuple[str, ...] = Field(min_length=2, description="names in the order of the logits")
    normalisation: Normalisation
    metrics: dict[str, float]
    lineage: Lineage
    latency: Latency | None = Field(None, description="none in cards of earlier versions")

    def plain(self) -> dict[str, Any]:
        """Plain data; an unknown latency is left out, as in cards of earlier versions.

        The identity of an export is the digest of it, so theirs stay valid.
        """
        plain = super().plain()
        return plain if self.latency is not None else {k: v for k, v in plain.items() if k != "latency"}


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
        file=path.name, sha256=_sha256(path), bytes=path.stat().st_size, max_abs_difference=difference
    )


def write_card(folder: Path, card: ModelCard) -> None:
    """Write the card beside the files that it describes."""
    (folder / CARD_FILE).write_text(json.dumps(card.plain(), indent=2) + "\n", encoding="utf-8")


def read_intact_card(folder: Path) -> ModelCard | None:
    """The card of a folder whose files are all as it says, or none."""
    try:
        card = ModelCard.from_plain(json.loads((folder / CARD_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError):  # no export yet, or one of another version
        return None
    paths = [(folder / entry.file, entry.sha256) for entry in card.files.values()]
    return card if all(path.is_file() and _sha256(path) == sha256 for path, sha256 in paths) else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
