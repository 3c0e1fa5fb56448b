"""Places in a network where a tensor can be read off, and how networks of ours say where their stages are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from torch import nn

from trainables.config.objective_base import PRE

STATED: Final = "STAGES"
"""The attribute of a network's class that holds the points of its stages, by name."""


@dataclass(frozen=True)
class Point:
    """The output of a part of a network, or what the part is given."""

    path: str
    """As in `named_modules`; below `Sequential` a number may count from the end, as in `layer1.-1.relu`."""
    is_input: bool = False
    call: int = -1
    """Which of the part's calls in a forward pass, as places in a list are counted."""
    copied: bool = False
    """Whether the tensor is overwritten further on, so that it is copied when it is made."""


def given_to(path: str, call: int = -1) -> Point:
    """What a part of a network is given."""
    return Point(path, is_input=True, call=call)


def stages(points: Mapping[str, str | Point]) -> Mapping[str, Point]:
    """What a network states as `STAGES`; a path alone is the output of that part."""
    return MappingProxyType(
        {name: Point(point) if isinstance(point, str) else point for name, point in points.items()}
    )


def activated_layers(count: int) -> dict[str, str | Point]:
    """Stages that are `layer1`, `layer2`, …, whose blocks each end in a call of their `relu`."""
    numbers = range(1, count + 1)
    maps: dict[str, str | Point] = {f"stage{number}": f"layer{number}" for number in numbers}
    return maps | {f"stage{number}{PRE}": given_to(f"layer{number}.-1.relu") for number in numbers}


def part_of(network: nn.Module, path: str) -> tuple[str, nn.Module]:
    """The part at a path, and its path with numbers from the end made plain.

    Raises:
        AttributeError: there is none.
    """
    plain: list[str] = []
    part = network
    for step in path.split(".") if path else ():
        names = list(dict(part.named_children()))
        if step.startswith("-") and step[1:].isdigit() and int(step[1:]) <= len(names):
            step = names[int(step)]
        if step not in names:
            raise AttributeError(f"no part {path!r} in {type(network).__name__}")
        plain.append(step)
        part = part.get_submodule(step)
    return ".".join(plain), part
