"""Export a student as safetensors, ONNX and torch.export, each proved against the PyTorch student."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from trainables.checkpoint_header import preprocessing_metadata
from trainables.config import Normalisation, digest_of
from trainables.errors import CheckpointError, ConfigError, StillhouseError
from trainables.export.model_card import (
    CARD_FILE,
    CARD_VERSION,
    CardFacts,
    Comparison,
    ExportedFile,
    ModelCard,
    describe_file,
    read_intact_card,
    write_card,
)
from trainables.export.onnx_session import Forward, onnx_forward
from trainables.export.stated import FILES, STATED, stated_text
from trainables.export.tracing import OPSET, quiet_exporter, write_graphs
from trainables.local_files import sync
from trainables.models.foreign.copies import copied
from trainables.models.weights import load_weights, save_weights, weights_digest

RELATIVE_TOLERANCE = 1e-4
TIE_TOLERANCE = 5e-6
"""Of the largest logit: two that are nearer to each other than rounding in fp32 name no single top class."""
VERIFIED_IMAGES: Final = 256
"""So many real images files are compared on, where the selection split has them."""
COMPARED_TOGETHER: Final = 32
"""Images of a batch in which files are compared: a whole sample at once could take gigabytes."""
ONNX_DATA = FILES["onnx"] + ".data"
LIBRARIES = ("torch", "onnx", "onnxscript", "onnxruntime", "safetensors")

# B = samples, C = classes; images are BCHW


@dataclass(frozen=True)
class ExportSummary:
    """A finished export."""

    folder: Path
    card: Path
    files: Mapping[str, ExportedFile]
    """By format: safetensors, onnx, torch_export."""

    def path(self, file_format: str) -> Path:
        """The file of one format."""
        return self.folder / self.files[file_format].file


def export_student(
    model: nn.Module,
    *,
    rebuild: Callable[[], nn.Module],
    folder: Path,
    input_shape: tuple[int, int, int],
    sample_images: Tensor,
    card: Mapping[str, Any],
) -> ExportSummary:
    """Write the student in three formats with its card, reload each and compare it with the original.

    `rebuild` gives a network of the same architecture with other weights; `sample_images` are normalised
    float32 BCHW images of real data, two or more; `card` is the plain data of `CardFacts`. Files are made
    beside `folder` and moved there at the end, replacing an earlier export; one of the same weights and
    facts whose files are intact is kept as it is. The model is left unchanged.

    Raises:
        ConfigError: the card or the sample images are not as described.
        StillhouseError: a format cannot be written, or differs from the PyTorch student by more than
            1e-4 of the largest logit or in a top class.
    """
    facts = _facts(card)
    _check_samples(sample_images, input_shape)
    # From here on a copy on the CPU in the plain layout: the files must not depend on the training device.
    student = copied(model).to("cpu", memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    identity = digest_of(
        [CARD_VERSION, OPSET, weights_digest(student), list(input_shape), facts.plain(), list(FILES)]
    )
    done = read_intact_card(folder)
    if done is not None and done.identity == identity:
        return _summary(folder, done)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        images = sample_images.detach().to("cpu", torch.float32).contiguous()
        found = _write_and_prove(student, rebuild, beside, images, facts)
        document = ModelCard(
            **dict(facts),
            identity=identity,
            input_shape=input_shape,
            onnx_opset=OPSET,
            files=_describe(beside, found),
            versions={name: version(name) for name in LIBRARIES},
        )
        write_card(beside, document)
        _replace_folder(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return _summary(folder, document)


def check_export(model: nn.Module, *, rebuild: Callable[[], nn.Module], sample_images: Tensor) -> None:
    """Write a student in all formats and compare them, as `export_student` does, and keep nothing.

    Raises:
        StillhouseError: as for `export_student`.
    """
    student = copied(model).cpu().eval()
    with tempfile.TemporaryDirectory() as folder:
        _write_and_prove(student, rebuild, Path(folder), sample_images.float().contiguous(), None)


def _summary(folder: Path, card: ModelCard) -> ExportSummary:
    return ExportSummary(folder, folder / CARD_FILE, MappingProxyType(card.files))


def _facts(card: Mapping[str, Any]) -> CardFacts:
    try:
        return CardFacts.from_plain(card)
    except ValidationError as error:
        raise ConfigError(f"the model card is not complete: {error}") from error


def _check_samples(images: Tensor, input_shape: tuple[int, int, int]) -> None:
    if tuple(images.shape[1:]) != input_shape or images.shape[0] < 2 or not images.is_floating_point():
        raise ConfigError(
            f"sample images are {images.dtype} of shape {tuple(images.shape)}; "
            f"an export needs two or more normalised float images of shape {input_shape}"
        )


def _write_and_prove(
    student: nn.Module,
    rebuild: Callable[[], nn.Module],
    folder: Path,
    images: Tensor,
    facts: CardFacts | None,
) -> dict[str, Comparison]:
    """Write all formats, with these facts; how each compares, by format."""
    channels, height, width = images.shape[1:]
    shape = (channels, height, width)
    stated = {} if facts is None else {STATED: stated_text(facts, shape)}
    paths = {name: folder / file for name, file in FILES.items()}
    with torch.inference_mode(False), torch.no_grad(), quiet_exporter():
        save_weights(student, paths["safetensors"], stated | _stated(facts))
        fresh = _safetensors_reader(rebuild, paths["safetensors"])
        found = {"safetensors": _prove("safetensors", student, fresh, images)}
        write_graphs(
            student,
            input_shape=shape,
            metadata={} if facts is None else stated | facts.metadata(),
            extra_files=stated,
            torch_export=paths["torch_export"],
            onnx=paths["onnx"],
        )
        readers: dict[str, Forward] = {
            "onnx": onnx_forward(paths["onnx"]),
            "torch_export": torch.export.load(paths["torch_export"]).module(),
        }
        return found | {name: _prove(name, student, readers[name], images) for name in readers}


def _stated(facts: CardFacts | None) -> dict[str, str]:
    """What the safetensors file says of itself."""
    if facts is None:
        return {}
    own = Normalisation(mean=facts.normalisation.mean, std=facts.normalisation.std)
    return {"model_card": CARD_FILE, **preprocessing_metadata(own, facts.classes)}


def _safetensors_reader(rebuild: Callable[[], nn.Module], path: Path) -> Forward:
    fresh = rebuild().cpu()
    try:
        load_weights(fresh, path)
    except CheckpointError as error:
        raise StillhouseError(f"the exported weights do not fit a fresh student: {error}") from error
    return fresh.eval()


def _prove(name: str, student: Forward, exported: Forward, images: Tensor) -> Comparison:
    """How a file compares with the student, at batch 1 and over all images.

    Raises:
        StillhouseError: it differs by more than the tolerance, or in a class that is no tie.
    """
    batches = (images[:1], *torch.split(images, COMPARED_TOGETHER))
    difference, same = 0.0, []
    for batch in batches:
        expected_BC, found_BC = student(batch), exported(batch)
        difference = max(difference, _difference(name, expected_BC, found_BC))
        same.append(expected_BC.argmax(dim=1) == found_BC.argmax(dim=1))
    agreement = float(torch.cat(same[1:]).double().mean())
    return Comparison(max_abs_difference=difference, agreement=agreement, images=len(images))


def _difference(name: str, expected_BC: Tensor, found_BC: Tensor) -> float:
    if expected_BC.shape != found_BC.shape:
        raise StillhouseError(
            f"{FILES[name]} gives logits of shape {tuple(found_BC.shape)}, "
            f"the student {tuple(expected_BC.shape)}"
        )
    difference = float((expected_BC - found_BC).abs().max())
    scale = max(1.0, float(expected_BC.abs().max()))
    # Written so that a NaN fails as well.
    if not difference <= RELATIVE_TOLERANCE * scale:
        raise StillhouseError(
            f"{FILES[name]} differs from the PyTorch student by {difference:.3g} in a logit, more than "
            f"{RELATIVE_TOLERANCE:g} of the largest ({scale:.3g}); the files were not kept"
        )
    chosen_B = expected_BC.gather(1, found_BC.argmax(dim=1, keepdim=True)).squeeze(1)
    other_B = expected_BC.amax(dim=1) - chosen_B > TIE_TOLERANCE * scale
    if bool(other_B.any()):
        raise StillhouseError(
            f"{FILES[name]} names another class than the PyTorch student for {int(other_B.sum())} of "
            f"{len(other_B)} images; the files were not kept"
        )
    return difference


def _describe(folder: Path, found: Mapping[str, Comparison]) -> dict[str, ExportedFile]:
    files = {name: describe_file(folder / FILES[name], found[name]) for name in FILES}
    weights = folder / ONNX_DATA
    return files | ({"onnx_data": describe_file(weights, found["onnx"])} if weights.exists() else {})


def _replace_folder(beside: Path, folder: Path) -> None:
    """Move a finished folder into place; POSIX cannot swap two folders, so the old one steps aside first."""
    beside.chmod(0o755)
    for path in [*beside.iterdir(), beside]:
        sync(path)
    old = beside.with_name(beside.name + ".old")
    if folder.exists():
        folder.rename(old)
    beside.rename(folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
