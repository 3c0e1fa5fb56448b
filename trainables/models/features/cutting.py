"""The operations of a forward pass that come behind one of its maps, as a graph of their own."""

# B = images, C = channels, H, W = height and width

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, fx

from trainables.models.features.points import Point
from trainables.models.features.traced import NAMED, Noted, Traced, plain_target


class Shortcut(Exception):
    """What comes behind a map also uses something that was computed before it."""


@dataclass
class _Behind:
    """Which operations can be computed from a map alone."""

    given: set[fx.Node] = field(default_factory=set)
    """Those that gave the map itself."""
    following: set[fx.Node] = field(default_factory=set)
    """Those that use it, near or far."""
    lost: set[fx.Node] = field(default_factory=set)
    """Those that need more than the map."""
    sizes: set[fx.Node] = field(default_factory=set)
    """Numbers that need more than the map, and are the size of the batch."""


def rest_of(traced: Traced, cut: str, wanted: Iterable[str], points: Mapping[str, Point]) -> fx.Graph:
    """A graph from the map at the point `cut` to `(logits, {name: feature})`.

    The map is as the network leaves it: where an operation overwrites it, what that makes of it. Where the
    point says that it is copied, it is as it was before. A size of the batch that is taken of an earlier
    tensor is taken of the map.

    Raises:
        Shortcut: logits or a feature also use what was computed before the map.
        TypeError: the network gives no tensor.
    """
    behind = _behind(traced, traced.points[cut], is_copied=points[cut].copied)
    ends = {name: traced.points[name].node for name in wanted}
    needed: set[fx.Node] = set()
    _need(traced.logits, behind, needed, "what follows it")
    for name, node in ends.items():
        _need(node, behind, needed, name)
    rest = fx.Graph()
    placeholder = rest.placeholder("map_BCHW")
    mapped = dict.fromkeys(behind.given, placeholder)
    kept = {name: node for name, node in ends.items() if points[name].copied}
    outputs: dict[str, fx.Node] = {}
    for node in traced.nodes:
        if node in behind.sizes and node in needed:
            mapped[node] = rest.call_method("size", (placeholder, 0))
        elif node in needed and node not in behind.given:
            mapped[node] = rest.node_copy(node, mapped.__getitem__)
            mapped[node].target = plain_target(node) if node.op in NAMED else node.target
            mapped[node].meta.clear()
        for name in [name for name, end in kept.items() if end is node]:
            outputs[name] = rest.call_method("clone", (mapped[node],))  # before it is overwritten
    outputs = {name: outputs.get(name, mapped[node]) for name, node in ends.items()}
    rest.output((mapped[traced.logits], outputs))
    return rest


def _behind(traced: Traced, cut: Noted, *, is_copied: bool) -> _Behind:
    moment = cut.node if is_copied else cut.overwritten_by or cut.node
    last = traced.nodes.index(moment)
    behind = _Behind()
    for place, node in enumerate(traced.nodes):
        value = traced.values.get(node, (None,))[0]
        if place <= last and isinstance(value, Tensor) and value is cut.tensor:
            behind.given.add(node)
            behind.following.add(node)
            continue
        sources = set(node.all_input_nodes)
        if sources & behind.following:
            behind.following.add(node)
        # Up to the moment when the map is what it is, what follows from it follows from something else.
        is_lost = node.op == "placeholder" or sources & behind.lost
        if is_lost or (place <= last and sources & behind.following):
            (behind.sizes if traced.is_batch_size(node) else behind.lost).add(node)
    return behind


def _need(end: fx.Node, behind: _Behind, needed: set[fx.Node], what: str) -> None:
    """Add all operations that an end needs.

    Raises:
        Shortcut: one of them cannot be computed from the map.
    """
    if end in behind.lost and end not in behind.following:
        raise Shortcut(f"{what} does not come behind it")
    waiting = [end]
    while waiting:
        node = waiting.pop()
        if node in needed:
            continue
        needed.add(node)
        if node in behind.given or node in behind.sizes:
            continue
        early = [source for source in node.all_input_nodes if source in behind.lost - behind.following]
        if early:
            raise Shortcut(f"{what} also uses {_told(early[0])}, which is computed before it")
        waiting += node.all_input_nodes
    changed = [node for node in needed if node in behind.lost]
    if changed:
        raise Shortcut(f"{what} also uses it as it is before it is overwritten, in {_told(changed[0])}")


def _told(node: fx.Node) -> str:
    if node.op == "placeholder":
        return "the images"
    return f"what `{plain_target(node) if node.op in NAMED else node.name}` gives"
