"""Where a network is quantised, so that ONNX Runtime can compute its layers in int8.

The runtime does so with a convolution whose input, weights and output are all quantised, and with a linear
layer whose input and weights are. Batch norm and ReLU directly behind a convolution belong to it: the first
is folded into it, the second is what the range of its output says already.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import torch
from torch import fx, nn

from trainables.config import Config
from trainables.errors import StillhouseError
from trainables.models.foreign.copies import copied

LAYERS: Final = (nn.Conv2d, nn.Linear)
"""What has weights of int8; a class that derives from one of them may compute otherwise, and stays."""
POINTS: Final = "fake_quantised"
"""Under which key a file of weights says at which points its network is quantised, as JSON."""
_PRODUCTS: Final = ("conv2d", "linear")
_RELUS: Final = ("relu", "relu_", "hardtanh", "hardtanh_", "clamp", "clamp_", "relu6")
_BATCH: Final = 2


class Points(Config):
    """Modules of a network, by their paths."""

    layers: tuple[str, ...]
    """Convolutions and linear layers whose weights are quantised."""
    inputs: tuple[str, ...]
    """Those among them whose input is quantised where they are called."""
    outputs: tuple[str, ...]
    """Modules behind which their output is quantised."""


def find_points(network: nn.Module, input_shape: tuple[int, int, int]) -> Points:
    """Where a network that takes images of this shape (channels, height, width) is quantised.

    It stays as it is, and is followed as `torch.export` does, in evaluation mode.

    Raises:
        StillhouseError: it cannot be followed, or has no layer that can be quantised.
    """
    device = next((weight.device for weight in network.parameters()), torch.device("cpu"))
    images = torch.zeros(_BATCH, *input_shape, device=device)
    sizes = ({0: torch.export.Dim("batch", min=1)},)
    try:
        program = torch.export.export(copied(network).eval(), (images,), dynamic_shapes=sizes)
    except Exception as error:  # a user's network may raise anything
        why = next(iter(str(error).strip().splitlines()), "no reason given")
        raise StillhouseError(
            f"{type(network).__name__} cannot be followed by torch.export, so nobody knows what to quantise: "
            f"{type(error).__name__}: {why}"
        ) from error
    points = _Graph(network, list(program.graph.nodes)).points()
    if not points.layers:
        raise StillhouseError(
            f"{type(network).__name__} has no torch.nn.Conv2d or torch.nn.Linear that could be quantised; "
            "ship the float32 files"
        )
    return points


class _Graph:
    """The operations of a network, and in which of its modules they are."""

    def __init__(self, network: nn.Module, nodes: list[fx.Node]) -> None:
        self._modules = dict(network.named_modules())
        self._nodes = nodes
        self._paths = {node: path for node in nodes if (path := _innermost(node)) in self._modules}
        self._calls = Counter(path for path in self._paths.values())
        self._layers = {node: self._paths[node] for node in nodes if self._is_layer(node)}

    def points(self) -> Points:
        outputs: dict[fx.Node, str] = {}
        for node in self._layers:
            if _name(node) == _PRODUCTS[0] and (end := self._end_of(node)) is not None:
                outputs[end] = self._paths[end]
        fed = {path for node, path in self._layers.items() if node.args[0] not in outputs}
        return Points(
            layers=tuple(dict.fromkeys(self._layers.values())),
            inputs=tuple(path for path in dict.fromkeys(self._layers.values()) if path in fed),
            outputs=tuple(dict.fromkeys(outputs.values())),
        )

    def _end_of(self, convolution: fx.Node) -> fx.Node | None:
        """Behind which operation a convolution's output is quantised; none where its readers do that."""
        end = convolution
        norm = _only_reader(end)
        if norm is not None and self._is_norm(norm):
            end = norm
        if self._is_read_by_layers(end):
            return None
        relu = _only_reader(end)
        if relu is not None and _name(relu) in _RELUS:
            if self._is_read_by_layers(relu):
                return None
            if self._has_module(relu):
                return relu
        return end

    def _is_layer(self, node: fx.Node) -> bool:
        path = self._paths.get(node)
        return path is not None and _name(node) in _PRODUCTS and type(self._modules[path]) in LAYERS

    def _is_norm(self, node: fx.Node) -> bool:
        path = self._paths.get(node)
        norm = nn.modules.batchnorm._BatchNorm
        return path is not None and isinstance(self._modules[path], norm) and self._has_module(node)

    def _has_module(self, node: fx.Node) -> bool:
        """Whether an operation is all that a module does, and does once: then the module's output is its."""
        path = self._paths.get(node)
        if path is None or self._calls[path] != 1:
            return False
        return next(self._modules[path].children(), None) is None

    def _is_read_by_layers(self, node: fx.Node) -> bool:
        return bool(node.users) and all(
            reader in self._layers and reader.args[0] is node for reader in node.users
        )


def _only_reader(node: fx.Node) -> fx.Node | None:
    readers = list(node.users)
    return readers[0] if len(readers) == 1 else None


def _name(node: fx.Node) -> str:
    """Of an operation of PyTorch, as `conv2d`; of others nothing."""
    packet = getattr(node.target, "overloadpacket", None)
    return "" if packet is None else str(packet).rpartition(".")[2]


def _innermost(node: fx.Node) -> str:
    """The path of the module that an operation is in; what comes behind an @ counts its calls."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next(iter(reversed(stack.values())), ("", None))[0]
    return str(path).partition("@")[0]
