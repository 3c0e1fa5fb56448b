"""The operations of a network's forward pass, with the places of its features among them.

`torch.fx` runs the forward pass with objects that stand for tensors. Beside that, each operation is computed
for two small batches of images, so that a size that does not depend on the batch is a plain number and may
decide what the network does, as `if images.shape[-1] >= 64` does.
"""

# B = images, C = channels, H, W = height and width

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

from trainables.models.features.points import Point

BATCHES: Final = (2, 3)
"""Images in each of the two batches: a number that is these two is the size of the batch."""
NAMED: Final = ("call_module", "get_attr")
"""Operations whose target is the path of a part, or of a tensor."""
_NETWORK: Final = "network."


@dataclass
class Noted:
    """A tensor at a point, and the operation that last overwrote it."""

    node: fx.Node
    tensor: Tensor
    version: int
    overwritten_by: fx.Node | None = None

    def look(self, node: fx.Node) -> None:
        """After an operation: whether it was the one that changed the tensor."""
        if self.tensor._version != self.version:
            self.version, self.overwritten_by = self.tensor._version, node


@dataclass(frozen=True)
class Traced:
    """A forward pass in one mode, training or evaluation."""

    nodes: Sequence[fx.Node]
    """All operations, in their order; the first is the batch of images, the last the output."""
    values: Mapping[fx.Node, Sequence[Any]]
    """What each of them gave for the two batches."""
    points: Mapping[str, Noted]
    constants: Mapping[str, Tensor]
    """By their paths in the graph, tensors that are no part of the network: the forward pass made them."""

    @property
    def logits(self) -> fx.Node:
        """The node of what the network gives.

        Raises:
            TypeError: it gives no tensor.
        """
        output = self.nodes[-1].args[0]
        if not isinstance(output, fx.Node):
            raise TypeError(f"it returns a {type(output).__name__} and no tensor")
        return output

    def is_batch_size(self, node: fx.Node) -> bool:
        """Whether it gave the number of images."""
        values = self.values.get(node, ())
        return all(isinstance(value, int) for value in values) and tuple(values) == BATCHES


def plain_target(node: fx.Node) -> str:
    """The path of the part that a node calls, or of the tensor that it fetches, from the network on."""
    return str(node.target).removeprefix(_NETWORK)


def traced(network: nn.Module, points: Mapping[str, Point], input_shape: tuple[int, int, int]) -> Traced:
    """The operations of a network in the mode that it is in; parts that hold no point stay whole.

    The network is a copy that nobody needs any longer: its buffers may change.

    Raises:
        Exception: of any class: the forward pass cannot be followed, or comes to no such point.
    """
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(size, *input_shape, generator=generator).to(device) for size in BATCHES]
    tracer = _Tracer(network, points, batches)
    with (
        torch.inference_mode(mode=False),
        torch.no_grad(),
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
    ):
        graph = tracer.trace(_Root(network))
    return Traced(
        tuple(graph.nodes),
        tracer.values,
        tracer.noted(points),
        _constants(graph, tracer.root, network.training),
    )


def _constants(graph: fx.Graph, root: nn.Module, mode: bool) -> dict[str, Tensor]:
    """Tensors beside the network, which get names that those of the other mode do not have."""
    constants = {}
    for node in graph.nodes:
        if node.op == "get_attr" and not str(node.target).startswith(_NETWORK):
            value = getattr(root, str(node.target))
            node.target = f"{'training' if mode else 'evaluation'}{node.target}"
            constants[node.target] = value
    return constants


class _Root(nn.Module):
    """A network as a part, so that hooks on the network itself are followed too."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images_BCHW: Tensor) -> Any:
        return self.network(images_BCHW)


class _Tracer(fx.Tracer):
    """Follows a forward pass, computes what it follows, and notes the tensors at the points."""

    proxy_buffer_attributes = True
    """Else what is computed from buffers alone would be constant, and stay behind on the device."""

    def __init__(self, network: nn.Module, points: Mapping[str, Point], batches: Sequence[Tensor]) -> None:
        super().__init__()
        self.values: dict[fx.Node, list[Any]] = {}
        self._batches = batches
        self._paths = {id(part): path for path, part in network.named_modules()}
        self._wanted = {(point.path, point.is_input) for point in points.values()}
        self._noted: dict[tuple[str, bool], list[Noted]] = {place: [] for place in self._wanted}
        self._computes = False

    def noted(self, points: Mapping[str, Point]) -> dict[str, Noted]:
        """What was noted, by the names of the points.

        Raises:
            LookupError: the forward pass did not come to one of them.
        """
        found = {}
        for name, point in points.items():
            turns = self._noted[point.path, point.is_input]
            if not -len(turns) <= point.call < len(turns):
                raise LookupError(f"it makes no {name} in this mode")
            found[name] = turns[point.call]
        return found

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a part stays whole: all do that have no point within."""
        path = self._paths.get(id(m), "")
        return bool(path) and not any(place.startswith(f"{path}.") for place, _ in self._wanted)

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """What the part gives; in a computation, its numbers."""
        if self._computes:
            return forward(*args, **kwargs)
        path = self._paths.get(id(m), "")
        given = next((value for value in (*args, *kwargs.values()) if isinstance(value, fx.Proxy)), None)
        self._note((path, True), given)
        output = super().call_module(m, forward, args, kwargs)
        self._note((path, False), output)
        return output

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """A part's parameter or buffer as it is followed; in a computation, itself."""
        if self._computes:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """An operation, which is computed at once."""
        node: fx.Node = super().create_node(*args, **kwargs)
        if node.op != "output":
            with self._computing():
                self.values[node] = [self._value(node, number) for number in range(len(BATCHES))]
            for noted in (one for turns in self._noted.values() for one in turns):
                noted.look(node)
        return node

    def proxy(self, node: fx.Node) -> Any:
        """What stands for the result of an operation: a plain number where it does not hang on the batch."""
        first, second = self.values[node]
        # An attribute, as `x.ndim`, is followed by its node.
        is_plain = node.target is not getattr and isinstance(first, int | float)
        return first if is_plain and first == second else super().proxy(node)

    def to_bool(self, obj: fx.Proxy) -> bool:
        """What decides a condition, where it does not hang on the images.

        Raises:
            TraceError: it does.
        """
        first, second = self.values[obj.node]
        if isinstance(first, int | float) and first == second:
            return bool(first)
        return super().to_bool(obj)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """The members of a tuple or a list.

        Raises:
            TraceError: it is none.
        """
        value = self.values[obj.node][0]
        if isinstance(value, tuple | list):
            return iter([obj[place] for place in range(len(value))])
        return super().iter(obj)

    def _note(self, place: tuple[str, bool], value: Any) -> None:
        if place not in self._wanted:
            return
        while isinstance(value, tuple | list) and value:
            value = value[0]
        while isinstance(value, fx.Proxy):
            tensor = self.values[value.node][0]
            if isinstance(tensor, Tensor):
                self._noted[place].append(Noted(value.node, tensor, tensor._version))
                return
            value = value[0] if isinstance(tensor, tuple | list) and tensor else None

    @contextmanager
    def _computing(self) -> Iterator[None]:
        self._computes = True
        try:
            yield
        finally:
            self._computes = False

    def _value(self, node: fx.Node, number: int) -> Any:
        if node.op == "placeholder":
            return self._batches[number]
        computer = fx.Interpreter(self.root, garbage_collect_values=False, graph=self.graph)
        computer.env = {source: self.values[source][number] for source in node.all_input_nodes}
        return computer.run_node(node)
