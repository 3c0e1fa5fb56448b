"""int8 with the weights and ranges that a network was trained with: what fake quantisation computed."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, helper, numpy_helper
from torch import Tensor, nn

from trainables.export.onnx_session import onnx_forward
from trainables.export.quantised import quiet_quantiser, refused, state_texts
from trainables.export.tracing import quiet_exporter, write_onnx
from trainables.foreign_files import foreign_file
from trainables.models.fake_quantised.network import exportable
from trainables.models.fake_quantised.quantisers import LEVEL_OF_WEIGHTS
from trainables.models.foreign.copies import copied

LARGEST_DIFFERENCE: Final = 0.05
"""Of a logit in the mean, as a part of the largest one: a file that differs by more is refused.

It is more than rounding of fp32: where a value lies half-way between two levels, file and network may take
different ones, and the file's biases are rounded too.
"""
COMPARED_TOGETHER: Final = 32
_PRODUCTS: Final = ("Conv", "Gemm", "MatMul")
_OFF_THE_GRID: Final = 1e-2
"""Of a step: weights that were rounded are nearer to a whole number of steps."""
_MOST: Final = np.iinfo(np.int32).max

# B = images, C = channels or classes, H, W = height and width, O = output channels


def write_int8_aware(
    network: nn.Module, source: Path, target: Path, images_BCHW: Tensor, stated: str
) -> None:
    """Write a network that was trained with fake quantisation as ONNX of the form of the static file.

    `source` is the student's float32 file: what that says of itself stays; `stated` is the student's
    document. `images_BCHW` are normalised float32, on which the file is compared with the network.

    Raises:
        StillhouseError: the network cannot be written, or the file gives other logits than it.
    """
    channels, height, width = images_BCHW.shape[1:]
    with (
        tempfile.TemporaryDirectory(dir=target.parent) as folder,
        quiet_exporter(),
        quiet_quantiser(),
        foreign_file(lambda why: refused(source, why)),
    ):
        exported = Path(folder, "exported.onnx")
        write_onnx(exportable(network), exported, input_shape=(channels, height, width))
        model = onnx.load(exported)
        # ONNX Runtime's preparation of the static file folds too, but also quantises these weights, in steps
        # of its own.
        fold_batch_norm(model.graph)
        quantise_weights(model.graph)
        state_texts(model, source, stated)
        onnx.save(model, target)
    expected_BC, found_BC = _answers(network, target, images_BCHW)
    difference = float((expected_BC - found_BC).abs().mean() / expected_BC.abs().max())
    # Written so that a NaN fails as well.
    if not difference <= LARGEST_DIFFERENCE:
        raise refused(
            source,
            f"the file's logits differ from those of the network that was trained for it by {difference:.3g} "
            "of the largest, in the mean",
        )


def fold_batch_norm(graph: GraphProto) -> None:
    """Make each batch norm behind a convolution a part of it; not every exporter of PyTorch does (2.9's not).

    With f = scale / √(variance + ε) the weights are w · f, the bias is (b - mean) · f + shift.
    """
    kept = {entry.name: entry for entry in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    for norm in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        conv = makers.get(norm.input[0])
        if conv is None or conv.op_type != "Conv" or readers[norm.input[0]] != 1:
            continue
        if not kept.keys() >= {*conv.input[1:], *norm.input[1:]}:
            continue
        weight, *biases = (numpy_helper.to_array(kept[name]) for name in conv.input[1:])
        scale_O, shift_O, mean_O, variance_O = (numpy_helper.to_array(kept[name]) for name in norm.input[1:])
        factor_O = scale_O / np.sqrt(variance_O + np.float32(_attribute(norm, "epsilon", 1e-5)))
        bias_O = ((biases[0] if biases else 0) - mean_O) * factor_O + shift_O
        folded = weight * factor_O.reshape(-1, *[1] * (weight.ndim - 1))
        names = [f"{norm.output[0]}_weight", f"{norm.output[0]}_bias"]
        for name, values in zip(names, (folded, bias_O), strict=True):
            graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
        del conv.input[1:]
        conv.input.extend(names)
        conv.output[0] = norm.output[0]
        graph.node.remove(norm)


def quantise_weights(graph: GraphProto) -> None:
    """Make integers of the weights of products whose input is quantised, and of their biases.

    Weights that are no whole numbers of steps were not rounded in training, and stay as they are. Steps are
    found again from the folded weights: the largest of a channel is 64 of them. A bias is a whole number of
    the input's step times the weights', in 32 bits, as integer products are added up.
    """
    weights = _Weights(graph)
    for node in graph.node:
        if node.op_type in _PRODUCTS:
            weights.quantise(node)
    weights.finish()


class _Weights:
    """The numbers of a graph, and what is put in their place."""

    def __init__(self, graph: GraphProto) -> None:
        self._graph = graph
        self._kept = {entry.name: entry for entry in graph.initializer}
        self._makers = {name: node for node in graph.node for name in node.output}
        self._made: dict[str, str] = {}
        self._new: list[NodeProto] = []

    def quantise(self, node: NodeProto) -> None:
        """Have a product take integers, where it is one of what was rounded."""
        before = self._makers.get(node.input[0])
        name = node.input[1]
        if before is None or before.op_type != "DequantizeLinear" or name not in self._kept:
            return
        weight = numpy_helper.to_array(self._kept[name])
        axis = _output_axis(node, weight.ndim)
        others = tuple(place for place in range(weight.ndim) if place != axis)
        largest_O = np.abs(weight).max(axis=others)
        steps_O = np.where(largest_O > 0, largest_O / LEVEL_OF_WEIGHTS, 1).astype(np.float32)
        counts = weight / np.expand_dims(steps_O, others)
        if np.abs(counts - counts.round()).max() > _OFF_THE_GRID:
            return
        node.input[1] = self._dequantised(f"{name}_axis{axis}", counts.round().astype(np.int8), steps_O, axis)
        if len(node.input) > 2 and node.input[2] in self._kept:
            self._quantise_bias(node, self._number(before.input[1]) * steps_O)

    def _quantise_bias(self, node: NodeProto, steps_O: NDArray[np.float32]) -> None:
        name = node.input[2]
        bias = numpy_helper.to_array(self._kept[name])
        counts = bias.astype(np.float64) / steps_O
        # One that 32 bits do not hold, and one that Gemm multiplies, stay float32.
        if bias.shape == steps_O.shape and np.abs(counts).max() < _MOST and _factor(node) == 1:
            unique = f"{name}_of_{node.input[1]}_{node.input[0]}"
            node.input[2] = self._dequantised(unique, counts.round().astype(np.int32), steps_O, 0)

    def _dequantised(self, name: str, counts: NDArray[Any], steps_O: NDArray[np.float32], axis: int) -> str:
        if name not in self._made:
            zeros = np.zeros(len(steps_O), counts.dtype)
            parts = {"counts": counts, "steps": steps_O, "zeros": zeros}
            for part, values in parts.items():
                self._graph.initializer.append(numpy_helper.from_array(values, f"{name}_{part}"))
            given = [f"{name}_{part}" for part in parts]
            made = self._made[name] = f"{name}_quantised"
            self._new.append(helper.make_node("DequantizeLinear", given, [made], name=made, axis=axis))
        return self._made[name]

    def _number(self, name: str) -> float:
        return float(numpy_helper.to_array(self._kept[name]))

    def finish(self) -> None:
        """Put the new operators before those that read them, and drop what nobody reads any more."""
        nodes = [*self._new, *self._graph.node]
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        read = {name for node in nodes for name in node.input}
        left = [entry for entry in self._graph.initializer if entry.name in read]
        del self._graph.initializer[:]
        self._graph.initializer.extend(left)


def _output_axis(node: NodeProto, n_axes: int) -> int:
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if _attribute(node, "transB", 0) else 1
    return n_axes - 1


def _factor(node: NodeProto) -> float:
    """What Gemm multiplies its bias by."""
    return float(_attribute(node, "beta", 1.0))


def _attribute(node: NodeProto, name: str, default: float) -> float:
    found = [helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name]
    return found[0] if found else default


def _answers(network: nn.Module, path: Path, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Logits BxC of the network and of the file."""
    judged, file = copied(network).cpu().eval(), onnx_forward(path)
    batches = torch.split(images_BCHW, COMPARED_TOGETHER)
    with torch.inference_mode():
        return torch.cat([judged(batch) for batch in batches]), torch.cat([file(batch) for batch in batches])
