"""Small ONNX files of every kind that a teacher may come in."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

Shape = tuple[int | str, ...]
FREE: Shape = ("b", 1, 8, 8)


def network(n_outputs: int = 10) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, n_outputs)).eval()


def images(count: int = 5, side: int = 8) -> Tensor:
    return torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(1))


def write(
    path: Path,
    *,
    last: str | None = None,
    shape: Shape = FREE,
    kind: int = TensorProto.FLOAT,
    n_outputs: int = 10,
    change: Callable[[Any], None] = lambda _: None,
    **attributes: Any,
) -> Path:
    """The network as a graph of three nodes, and perhaps a last one; `change` may spoil the model."""
    weights = network(n_outputs).state_dict()
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    tensors = [
        numpy_helper.from_array(weights[f"1.{name}"].numpy().astype(dtype), name)
        for name in ("weight", "bias")
    ]
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["scores"], transB=1),
    ]
    if last is not None:
        nodes.append(helper.make_node(last, ["scores"], ["answers"], **attributes))
    output = "scores" if last is None else "answers"
    graph = helper.make_graph(
        nodes,
        "teacher",
        [helper.make_tensor_value_info("images", kind, shape)],
        [helper.make_tensor_value_info(output, kind, [shape[0], n_outputs])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    change(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def exported(module: nn.Module, path: Path, example: Tensor) -> Path:
    """By torch's exporter, with any batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), (example,), path, dynamo=False, input_names=["images"], output_names=["logits"],
            dynamic_axes={"images": {0: "b"}, "logits": {0: "b"}},
        )  # fmt: skip
    return path
