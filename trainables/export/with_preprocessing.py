"""An ONNX file that takes a picture as it is: resizing, cutting and normalising stand in its graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, compose, helper, numpy_helper

from trainables.errors import StillhouseError
from trainables.export.onnx_session import INPUT, PICTURE
from trainables.export.stated import STATED, StudentDocument, document_of
from trainables.foreign_files import foreign_file

_READY: Final = "prepare_ready"
_PREFIX: Final = "prepare_"
"""Before the names of all values here; PyTorch's exporter uses none of these."""

# H, W = height and width of a picture, C = channels, S = side of the student's input


def write_with_preprocessing(source: Path, target: Path) -> None:
    """Write a student's ONNX file anew so that it takes `picture`, uint8 HxWxC of any size, one at a time.

    It does what its file says was done to the images that it was trained on: antialiased bilinear resizing
    in 8 bits, the middle cut out, and channels normalised. Where these were all of the input's size, a
    picture of another size is resized to it on its shorter side.

    Raises:
        StillhouseError: the student's input is not square, or its weights lie in a file beside it.
        CheckpointError: the file does not say how images are prepared for it.
    """
    document = document_of(source)
    channels, height, width = document.input_shape
    if height != width:
        raise StillhouseError(
            f"{source.name} takes images of {width}x{height} pixels, and only square ones are cut out; "
            "prepare images in your own program, and give them to the file as it is"
        )
    if source.with_name(f"{source.name}.data").exists():
        raise StillhouseError(
            f"{source.name} keeps its weights in a file beside it, with which graphs are not joined; prepare "
            "images in your own program, and give them to the file as it is"
        )
    with foreign_file(
        lambda why: StillhouseError(f"{source.name} cannot be joined with its preprocessing: {why}")
    ):
        student = onnx.load(source)
        prepare = _preparing_model(student, document, channels, width)
        model = compose.merge_models(prepare, student, io_map=[(_READY, INPUT)])
        del model.metadata_props[:]
        texts = {entry.key: entry.value for entry in student.metadata_props}
        taking = document.with_overrides(takes="a picture")
        helper.set_model_props(model, texts | {STATED: json.dumps(taking.plain())})
        onnx.checker.check_model(model)
        onnx.save(model, target)


def _preparing_model(
    student: onnx.ModelProto, document: StudentDocument, channels: int, side: int
) -> onnx.ModelProto:
    """From `picture` to what the student's file takes, with its versions of format and operators."""
    nodes, numbers = _resized(document, channels, side)
    more_nodes, more_numbers = _normalised(document, channels)
    graph = helper.make_graph(
        [*nodes, *more_nodes],
        "prepare",
        [helper.make_tensor_value_info(PICTURE, TensorProto.UINT8, ["height", "width", channels])],
        [helper.make_tensor_value_info(_READY, TensorProto.FLOAT, [1, channels, side, side])],
        [*numbers, *more_numbers],
    )
    return helper.make_model(graph, opset_imports=student.opset_import, ir_version=student.ir_version)


def _resized(
    document: StudentDocument, channels: int, side: int
) -> tuple[list[NodeProto], list[TensorProto]]:
    """`prepare_cut`, uint8 1xCxSxS: as `trainables.data.resizing.squared` makes it, in whole numbers.

    The shorter side becomes `shorter` pixels and the other `shorter` * other // shortest; the middle begins
    at half of what is left over, a half rounded to the even number.
    """
    resizing = None if document.preparation is None else document.preparation.resizing
    shorter = side if resizing is None else resizing.shorter_side
    numbers = [
        _integers("zero", [0]),
        _integers("image", [1, channels]),
        _integers("sides", [side, side]),
        _integers("axes", [2, 3]),
        numpy_helper.from_array(np.array(0.5, dtype=np.float32), f"{_PREFIX}half"),
    ]
    if shorter is None:  # stretched
        sizes = [_node("Identity", ["sides"], "size")]
    else:
        numbers.append(_integers("shorter", [shorter]))
        sizes = [
            _node("Shape", [PICTURE], "whole", start=0, end=2),
            _node("ReduceMin", ["whole"], "shortest", keepdims=1),
            _node("Mul", ["whole", "shorter"], "product"),
            _node("Div", ["product", "shortest"], "size"),
        ]
    nodes = [
        *sizes,
        _node("Transpose", [PICTURE], "planes", perm=[2, 0, 1]),
        _node("Unsqueeze", ["planes", "zero"], "batch"),
        _node("Concat", ["image", "size"], "shape", axis=0),
        # On uint8, ONNX Runtime computes as Pillow does, in fixed point.
        _node("Resize", ["batch", "", "", "shape"], "resized", mode="linear", antialias=1),
        _node("Sub", ["size", "sides"], "over"),
        _node("Cast", ["over"], "over_float", to=TensorProto.FLOAT),
        _node("Mul", ["over_float", "half"], "over_half"),
        _node("Round", ["over_half"], "start_float"),
        _node("Cast", ["start_float"], "start", to=TensorProto.INT64),
        _node("Add", ["start", "sides"], "end"),
        _node("Slice", ["resized", "start", "end", "axes"], "cut"),
    ]
    return nodes, numbers


def _normalised(document: StudentDocument, channels: int) -> tuple[list[NodeProto], list[TensorProto]]:
    """`prepare_ready`, float32: in the order of operations of `trainables.views.normalise`."""
    own = document.normalisation
    numbers = [
        numpy_helper.from_array(np.array(255.0, dtype=np.float32), f"{_PREFIX}levels"),
        _per_channel("mean", own.mean, channels),
        _per_channel("std", own.std, channels),
    ]
    nodes = [
        _node("Cast", ["cut"], "pixels", to=TensorProto.FLOAT),
        _node("Div", ["pixels", "levels"], "scaled"),
        _node("Sub", ["scaled", "mean"], "centred"),
        _node("Div", ["centred", "std"], "ready"),
    ]
    return nodes, numbers


def _node(kind: str, given: list[str], result: str, **attributes: Any) -> NodeProto:
    names = [name if name in ("", PICTURE) else f"{_PREFIX}{name}" for name in given]
    return helper.make_node(kind, names, [f"{_PREFIX}{result}"], f"{_PREFIX}{result}_of", **attributes)


def _integers(name: str, values: list[int]) -> TensorProto:
    return numpy_helper.from_array(np.array(values, dtype=np.int64), f"{_PREFIX}{name}")


def _per_channel(name: str, values: tuple[float, ...], channels: int) -> TensorProto:
    array = np.array(values, dtype=np.float32).reshape(1, channels, 1, 1)
    return numpy_helper.from_array(array, f"{_PREFIX}{name}")
