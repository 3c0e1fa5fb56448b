"""Further files of an exported student: int8, and one that takes pictures as they are."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor, nn

from orchestrator.pipeline.shipped.labelled_images import TOGETHER, LabelledImages, Pixels
from orchestrator.pipeline.shipped.latency import onnx_latency
from trainables.errors import CheckpointError, ConfigError, DataError, StillhouseError
from trainables.export.formats import VERIFIED_IMAGES
from trainables.export.model_card import (
    Comparison,
    ExportedFile,
    ModelCard,
    describe_file,
    read_intact_card,
    write_card,
)
from trainables.export.opening import OpenedStudent, open_student
from trainables.export.pt2_with_preprocessing import write_pt2_with_preprocessing
from trainables.export.quantised import write_int8
from trainables.export.quantised_aware import write_int8_aware
from trainables.export.stated import FILES
from trainables.export.with_preprocessing import write_with_preprocessing
from trainables.views.normalise import normalise

MoreFormat = Literal[
    "onnx_int8", "onnx_int8_aware", "onnx_with_preprocessing", "torch_export_with_preprocessing"
]
MORE_FILES: Final[Mapping[MoreFormat, str]] = MappingProxyType(
    {
        "onnx_int8": "student_int8.onnx",
        "onnx_int8_aware": "student_int8_aware.onnx",
        "onnx_with_preprocessing": "student_with_preprocessing.onnx",
        "torch_export_with_preprocessing": "student_with_preprocessing.pt2",
    }
)

# B = images, C = channels or classes


def add_format(
    folder: Path, name: MoreFormat, images: LabelledImages, aware: Callable[[], nn.Module] | None = None
) -> ExportedFile:
    """Write a further file into a champion's folder, measure it on these images, and note it in the card.

    int8 is calibrated on the first 256 of them, and asked about all; `aware` gives the student as it was
    trained for int8, whose file needs no calibration and is asked alike; a file that takes pictures is
    compared with the ordinary way on the first 256. All are compared with the student's ONNX file, which
    was proved to answer as the PyTorch student. An earlier file of that name is replaced.

    Raises:
        StillhouseError: the student cannot be written in this format; the folder stays as it was.
        CheckpointError: the folder holds no intact export.
        DataError: no image can be read.
    """
    card = _card_of(folder)
    student = open_student(folder / FILES["onnx"])
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as beside:
        path = Path(beside, MORE_FILES[name])
        if name == "onnx_int8_aware":
            entry = _add_int8_aware(student, path, images, _trained(aware))
        else:
            entry = MAKERS[name](student, path, images)
        path.rename(folder / path.name)
    _note(folder, card, name, entry)
    return entry


def measure_onnx(folder: Path) -> ExportedFile:
    """Measure the ONNX file of an export, and note its latency in the card; as the card says, where it does.

    Raises:
        CheckpointError: the folder holds no intact export.
    """
    card = _card_of(folder)
    entry = card.files["onnx"]
    if entry.latency is None:
        latency = onnx_latency(folder / entry.file, card.input_shape)
        entry = entry.model_copy(update={"latency": latency})
        _note(folder, card, "onnx", entry)
    return entry


def _card_of(folder: Path) -> ModelCard:
    card = read_intact_card(folder)
    if card is None or "onnx" not in card.files:
        raise CheckpointError(f"{folder} holds no intact export with an ONNX file; export the student again")
    return card


def _note(folder: Path, card: ModelCard, name: str, entry: ExportedFile) -> None:
    write_card(folder, card.model_copy(update={"files": {**card.files, name: entry}}))


def _add_int8(student: OpenedStudent, path: Path, images: LabelledImages) -> ExportedFile:
    document = student.document
    own = document.normalisation
    prepared = (pixels for _, pixels in images.pictures(document, VERIFIED_IMAGES))
    batches = (normalise(batch, own.mean, own.std) for batch in _stacked(prepared))
    write_int8(student.file, path, batches, json.dumps(document.plain()))
    return _measured_int8(student, path, images)


def _add_int8_aware(
    student: OpenedStudent, path: Path, images: LabelledImages, network: nn.Module
) -> ExportedFile:
    document = student.document
    own = document.normalisation
    prepared = (pixels for _, pixels in images.pictures(document, VERIFIED_IMAGES))
    batches = [normalise(batch, own.mean, own.std) for batch in _stacked(prepared)]
    if not batches:
        raise _nothing_to_compare()
    write_int8_aware(network, student.file, path, torch.cat(batches), json.dumps(document.plain()))
    return _measured_int8(student, path, images)


def _trained(aware: Callable[[], nn.Module] | None) -> nn.Module:
    if aware is None:
        raise ConfigError(
            "int8 with training takes the experiment: stillhouse export EXPERIMENT --format onnx_int8_aware"
        )
    return aware()


def _measured_int8(student: OpenedStudent, path: Path, images: LabelledImages) -> ExportedFile:
    document, quantised = student.document, open_student(path)
    found, right = _Differences(), 0
    of_both = zip(images.answers(student), images.answers(quantised), strict=True)
    for (expected_BC, labels_B, _), (answered_BC, _, _) in of_both:
        found.add(expected_BC, answered_BC)
        right += int((answered_BC.argmax(dim=1) == labels_B).sum())
    compared = found.comparison()
    measured = {
        "accuracy": right / compared.images,
        "latency": onnx_latency(path, document.input_shape),
    }
    return describe_file(path, compared).model_copy(update=measured)


def _add_with_preprocessing(student: OpenedStudent, path: Path, images: LabelledImages) -> ExportedFile:
    if path.suffix == ".pt2":
        write_pt2_with_preprocessing(student.file.with_name(FILES["torch_export"]), path)
    else:
        write_with_preprocessing(student.file, path)
    taking = open_student(path)
    found = _Differences()
    for picture, prepared in images.pictures(student.document, VERIFIED_IMAGES):
        expected_BC = student.logits(torch.tensor(prepared)[None])
        found.add(expected_BC, taking.logits_of_picture(picture))
    return describe_file(path, found.comparison())


MAKERS: Final[Mapping[MoreFormat, Callable[[OpenedStudent, Path, LabelledImages], ExportedFile]]] = (
    MappingProxyType(
        {
            "onnx_int8": _add_int8,
            "onnx_with_preprocessing": _add_with_preprocessing,
            "torch_export_with_preprocessing": _add_with_preprocessing,
        }
    )
)


class _Differences:
    """How two files compare, over batches of logits."""

    def __init__(self) -> None:
        self._largest = 0.0
        self._same = 0
        self._images = 0

    def add(self, expected_BC: Tensor, found_BC: Tensor) -> None:
        if len(expected_BC) == 0:
            return
        self._largest = max(self._largest, float((expected_BC - found_BC).abs().max()))
        self._same += int((expected_BC.argmax(dim=1) == found_BC.argmax(dim=1)).sum())
        self._images += len(expected_BC)

    def comparison(self) -> Comparison:
        """Raises DataError where no image was compared."""
        if not self._images:
            raise _nothing_to_compare()
        return Comparison(
            max_abs_difference=self._largest, agreement=self._same / self._images, images=self._images
        )


def _nothing_to_compare() -> DataError:
    return DataError("there is no image to compare on that can be read; give at least one")


def _stacked(prepared: Iterable[Pixels]) -> Iterator[Tensor]:
    """uint8 BxCxHxW, some images at a time."""
    waiting: list[Pixels] = []
    for pixels in prepared:
        waiting.append(pixels)
        if len(waiting) == TOGETHER:
            yield torch.from_numpy(np.stack(waiting))
            waiting = []
    if waiting:
        yield torch.from_numpy(np.stack(waiting))


def add_formats(
    folder: Path,
    names: Iterable[MoreFormat],
    images: LabelledImages,
    aware: Callable[[], nn.Module] | None = None,
) -> tuple[dict[MoreFormat, ExportedFile], dict[MoreFormat, str]]:
    """Each of these formats that the student can be written in, and why not, of the others."""
    made: dict[MoreFormat, ExportedFile] = {}
    refused: dict[MoreFormat, str] = {}
    for name in names:
        try:
            made[name] = add_format(folder, name, images, aware)
        except StillhouseError as error:  # the student is exported all the same
            refused[name] = str(error)
    return made, refused
