"""int8: a student's ONNX file quantised statically, calibrated on real images."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor

from trainables.errors import StillhouseError
from trainables.export.onnx_session import INPUT
from trainables.export.stated import STATED
from trainables.foreign_files import foreign_file

CALIBRATED_TOGETHER: Final = 16
_MARK: Final = "QuantizeLinear"
_LARGEST_BYTES: Final = 2_000_000_000
_NAMED: Final = 5

# B = images, C = channels, H, W = height and width


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands images to the calibration, some at a time."""

    def __init__(self, batches: Iterable[Tensor]) -> None:
        self._batches: Iterator[Tensor] = (
            part for batch in batches for part in torch.split(batch, CALIBRATED_TOGETHER)
        )

    def get_next(self) -> dict[str, Any] | None:
        """The next images, or none at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch.contiguous().numpy()}


def write_int8(source: Path, target: Path, images: Iterable[Tensor], stated: str) -> None:
    """Quantise a student's ONNX file; `images` are normalised float32 BxCxHxW, on which ranges are measured.

    Weights get 7 bits and a scale for each channel, activations 8 bits (QDQ): so sums do not overflow on
    processors without VNNI either. What the file says of itself stays; `stated` is the student's document.

    Raises:
        StillhouseError: the student cannot be quantised; its operators or the library's reason are named.
    """
    if source.with_name(f"{source.name}.data").exists() or source.stat().st_size > _LARGEST_BYTES:
        raise refused(source, "it is larger than 2 GB, which the quantiser does not take as one file")
    with (
        tempfile.TemporaryDirectory(dir=target.parent) as folder,
        quiet_quantiser(),
        foreign_file(lambda why: refused(source, why)),
    ):
        prepared, found = Path(folder, "prepared.onnx"), Path(folder, "found.onnx")
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(found),
            _Reader(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        model = onnx.load(found)
        operators = Counter(node.op_type for node in model.graph.node)
        if _MARK not in operators:
            there = ", ".join(name for name, _ in operators.most_common(_NAMED))
            raise refused(source, f"none of its operators has an int8 form ({there})")
        state_texts(model, source, stated)
        onnx.save(model, target)


def state_texts(model: onnx.ModelProto, source: Path, stated: str) -> None:
    """Have a quantised model say of itself what its source says, and `stated`, the student's document."""
    told = onnx.load(source, load_external_data=False).metadata_props
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {entry.key: entry.value for entry in told} | {STATED: stated})


def refused(source: Path, why: str) -> StillhouseError:
    """The error that says why a student's file has no int8 form."""
    return StillhouseError(
        f"{source.name} cannot be quantised to int8: {why}; ship the float32 files, or a student of "
        "convolutions and linear layers"
    )


class quiet_quantiser:
    """Without the quantiser's warnings to the root logger, of preparations that were made already."""

    def __enter__(self) -> None:
        self._before = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *_: object) -> None:
        logging.disable(self._before)
