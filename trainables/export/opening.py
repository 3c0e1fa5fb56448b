"""Exported students, opened to be asked: a network that is built again, an ONNX session, or a program.

Nothing is unpickled, and no code runs that a file names, but for a factory where the user allows it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainables.config import ModelConfig, ModelName
from trainables.errors import CheckpointError
from trainables.export.onnx_session import RUNTIME, Forward, onnx_forward
from trainables.export.pt2_archive import open_archive
from trainables.export.stated import EXPORTED_SUFFIXES, FILES, StudentDocument, document_of
from trainables.export.tracing import quiet_exporter
from trainables.foreign_files import foreign_file
from trainables.models import build_model
from trainables.models.weights import load_weights
from trainables.views.normalise import normalise

# B = images, C = channels or classes, H, W = height and width


@dataclass(frozen=True)
class OpenedStudent:
    """A student that can be asked."""

    file: Path
    document: StudentDocument
    forward: Forward
    runtime: str
    """What computes, and its version."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of the logits."""
        return self.document.classes

    @property
    def takes_pictures(self) -> bool:
        """Whether the file prepares images itself."""
        return self.document.takes == "a picture"

    def logits(self, images_BCHW: Tensor) -> Tensor:
        """float32 BxC on the CPU, of uint8 images that were resized as the student's own were.

        Raises:
            CheckpointError: the file cannot take them.
        """
        own = self.document.normalisation
        prepared = normalise(images_BCHW, own.mean, own.std).contiguous(memory_format=torch.channels_last)
        return self._answered(prepared)

    def logits_of_picture(self, picture_HWC: NDArray[np.uint8]) -> Tensor:
        """float32 1xC of one picture of any size, of a file that prepares images itself."""
        return self._answered(torch.tensor(picture_HWC))

    def _answered(self, given: Tensor) -> Tensor:
        refused = self._refused
        with torch.inference_mode(), foreign_file(refused):
            logits_BC = self.forward(given).float().cpu()
        if logits_BC.shape[-1] != len(self.classes) or not bool(torch.isfinite(logits_BC).all()):
            raise refused(f"it gives logits of shape {tuple(logits_BC.shape)}, or such that are not finite")
        return logits_BC

    def _refused(self, why: str) -> CheckpointError:
        return CheckpointError(f"{self.file} cannot answer: {why}; export the student again")


def exported_file(place: Path) -> Path:
    """The file that is asked: the one that is named, or of a champion's folder the best that is there.

    Raises:
        CheckpointError: there is none.
    """
    if not place.is_dir():
        return place
    weights, graph = place / FILES["safetensors"], place / FILES["onnx"]
    with suppress(CheckpointError):
        if is_rebuildable(document_of(weights)):
            return weights
    if graph.is_file():
        return graph
    found = sorted(path.name for path in place.glob("*") if path.suffix in EXPORTED_SUFFIXES)
    graphs = [name for name in found if name.endswith(graph.suffix)]
    if len(graphs) == 1:  # under the name that MLflow gives it
        return place / graphs[0]
    raise CheckpointError(
        f"{place} holds no {weights.name} that can be built again and no {graph.name}; it has "
        f"{', '.join(found) or 'no exported student'}: name a file"
    )


def open_student(path: Path, *, allow_factory: bool = False) -> OpenedStudent:
    """The student in an exported file; on the CPU.

    Safetensors hold weights alone: their network is built again, by a name of ours, of torchvision or of
    timm, or, with `allow_factory`, by the user's own function.

    Raises:
        CheckpointError: it is no exported student, is damaged, or its network cannot be built again.
        ConfigError: the factory cannot be found or called.
    """
    document = document_of(path)
    match path.suffix:
        case ".safetensors":
            return OpenedStudent(
                path, document, _rebuilt(path, document, allow_factory), runtime_version("torch")
            )
        case ".onnx":
            return OpenedStudent(path, document, onnx_forward(path), runtime_version(RUNTIME))
        case _:
            with quiet_exporter():
                return OpenedStudent(path, document, open_archive(path), runtime_version("torch"))


def is_rebuildable(document: StudentDocument) -> bool:
    """Whether its network is one that a library or we build by name, without code from elsewhere."""
    if document.architecture is None:
        return False
    network = document.architecture.network
    return network.factory is None and network.name is not ModelName.TRANSFORMERS


def _rebuilt(path: Path, document: StudentDocument, allow_factory: bool) -> nn.Module:
    built = document.architecture
    if built is None:
        raise CheckpointError(
            f"{path} does not say which network its weights fit; use the ONNX file beside it"
        )
    if not is_rebuildable(document) and not (allow_factory and built.network.factory is not None):
        raise CheckpointError(_why_not_built(path, built.network))
    with torch.random.fork_rng(devices=[]):
        network = build_model(built.network, n_classes=built.n_classes, in_channels=built.in_channels)
    load_weights(network, path)
    return network.eval()


def _why_not_built(path: Path, network: ModelConfig) -> str:
    beside = "use the .onnx or .pt2 file of this student, which needs no network"
    if network.factory is None:
        return (
            f"{path} holds weights of a network of {network.name}, which is not built from a file; {beside}"
        )
    return (
        f"{path} holds weights of a network that the function {network.factory!r} builds, which is code of "
        f"yours; {beside}, or allow the function with --allow-factory, in the folder where it lies"
    )


def runtime_version(library: str) -> str:
    """What computes, and its version."""
    return f"{library} {version(library)}"
