"""The two formats that hold a graph, torch.export and ONNX, from one tracing: that is the slow part.

Neither holds a place of the machine that traced, nor an image of the user's data.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from trainables.errors import StillhouseError

OPSET = 18  # the one that PyTorch's exporter is written in: a newer one adds a conversion and no operator
ONNX_LIMIT_BYTES = 2_000_000_000  # one protobuf file holds less than 2 GiB
TRACED_BATCH = 2  # a batch of one would be traced as a constant


def write_graphs(
    student: nn.Module,
    *,
    input_shape: tuple[int, int, int],
    metadata: Mapping[str, str],
    torch_export: Path,
    onnx: Path,
    extra_files: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write both files; they take float32 BCHW images of `input_shape` (CHW) in batches of any size.

    `metadata` becomes the ONNX model's own, which any runtime can read; `extra_files` are kept in
    torch.export's archive, by name.

    Raises:
        StillhouseError: the student cannot be traced, or a file cannot be written.
    """
    with _traceable():
        program = _traced(student, input_shape)
        drop_places(program.graph_module)
        torch.export.save(program, torch_export, extra_files=dict(extra_files))
        _write_onnx(program, onnx, metadata)


def write_onnx(network: nn.Module, path: Path, *, input_shape: tuple[int, int, int]) -> None:
    """Write the ONNX file alone, of a network that has operators of ONNX in it, as for `write_graphs`.

    Raises:
        StillhouseError: the network cannot be traced, or the file cannot be written.
    """
    with _traceable():
        program = _traced(network, input_shape)
        drop_places(program.graph_module)
        _write_onnx(program, path, {})


def _traced(network: nn.Module, input_shape: tuple[int, int, int]) -> ExportedProgram:
    # Black images, for torch.export keeps what it traced with in its file.
    images = torch.zeros(TRACED_BATCH, *input_shape)
    sizes = ({0: torch.export.Dim("batch", min=1)},)
    return torch.export.export(network, (images,), dynamic_shapes=sizes)


@contextlib.contextmanager
def _traceable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StillhouseError(f"cannot write the exported student: {error}") from error
    except Exception as error:  # the exporter may raise anything for a user's network
        raise StillhouseError(
            f"cannot export the student: {type(error).__name__}: {_first_line(error)}; "
            f"its forward pass must be traceable by torch.export with any batch size"
        ) from error


def _first_line(error: Exception) -> str:
    """Without torch's pages of advice."""
    return next(iter(str(error).strip().splitlines()), "no reason given").strip()


def drop_places(module: GraphModule) -> None:
    """Take away the file and line of code that each node remembers: both formats would keep them."""
    for part in module.modules():
        if isinstance(part, GraphModule):
            for node in part.graph.nodes:
                node.meta.pop("stack_trace", None)


def _write_onnx(program: ExportedProgram, path: Path, metadata: Mapping[str, str]) -> None:
    size_bytes = sum(value.nbytes for value in program.state_dict.values())
    exported = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: "batch"},),
    )
    if exported is None:
        raise StillhouseError("PyTorch's exporter gave no ONNX model")
    exported.model.metadata_props.update(metadata)
    exported.save(path, external_data=size_bytes > ONNX_LIMIT_BYTES)


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Without the exporter's progress and its warnings about its own internals."""
    names = ("torch.onnx", "torch.export", "torch.fx.experimental", "onnxscript", "onnx_ir")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
