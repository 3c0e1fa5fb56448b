"""The stages of a network by name: as its class states them, or as one forward pass shows them.

Of a network that states none:

- A *map* is an output BxCxHxW whose sides are in the images' proportion. Parts inside of a *step* do not
  count: a part that takes a map and gives one, leaves more than a third of its sides, and is a block of two
  or more layers with weights, or holds none. So what a block makes inside of itself is no stage.
- The last map of the smallest size, up to where pooling leaves one position, is the last stage. What is
  larger and comes after it is none: the adaptive pooling of torchvision's VGG, which makes 7x7 of small maps,
  or a decoder.
- Of the maps before it, one that is larger than all that follow is a stage. So `stage1`, `stage2` and so on
  are in the order in which they are computed, each smaller than the one before and the last of its size. It
  may lie behind the last block, as the 1x1 convolution of MobileNetV2 does. A small map beside the way to
  larger ones, as the keys of Twins' attention are, is none.
- `stem` is the last map before the first step of two or more layers with weights (a block), and, in a network
  without blocks, before its second convolution. Where no map of the largest size comes after it, that size
  has no stage: torchvision's resnet18 has its stem before the pooling, and `layer1` to `layer4` as stages.
"""

# B = samples, C = channels, H, W = height and width

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from torch import nn

from trainables.config.objective_base import PRE
from trainables.models.features.extended import Extended
from trainables.models.features.observing import Call, Seen
from trainables.models.features.points import STATED, Point, given_to
from trainables.models.foreign.aligned import Aligned
from trainables.models.renormalised import Renormalised
from trainables.models.resized import NETWORK, Resize

STEM: Final = "stem"
STAGE: Final = "stage"
_WITH_WEIGHTS: Final = nn.Conv2d | nn.Linear
_BLOCK: Final = 2
"""Layers with weights that make a step a block."""
_SHRINKING: Final = 3
"""A step leaves more than this part of a side: without padding, 35 positions become 17 and 12 become 5."""
_MAP_DIMENSIONS: Final = 4
_ACTIVATIONS: Final = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Hardswish, nn.Hardtanh, nn.Sigmoid, nn.Hardsigmoid, nn.Tanh, nn.Softplus),
)


def inner_network(network: nn.Module) -> tuple[str, nn.Module]:
    """The network behind layers that resize, normalise or choose classes, and what is before its paths."""
    prefix = ""
    while True:
        resizes = isinstance(network, nn.Sequential) and len(network) and isinstance(network[0], Resize)
        if isinstance(network, Extended):
            name = "base"
        elif resizes or isinstance(network, Aligned | Renormalised):
            name = NETWORK
        else:
            return prefix, network
        network, prefix = network.get_submodule(name), f"{prefix}{name}."


def stated_stages(network: nn.Module) -> Mapping[str, Point] | None:
    """What the network's class states of its stages, as paths from the network itself; none where nothing."""
    return getattr(type(network), STATED, None)


def seen_stages(calls: Sequence[Call], input_size: tuple[int, int]) -> Mapping[str, Point]:
    """`stem` and the stages in the calls of one forward pass of images of this height and width."""
    maps = _maps(calls, input_size)
    if not maps:
        return {}
    lasts = _shrinking(maps)
    end = _end_of_stem(calls, maps)
    of_stem = [one for one in maps if one.size == lasts[0].size and one.call.ended < end]
    if not of_stem:  # it begins with a block, which is its first stage
        return _named(calls, lasts)
    stem = of_stem[-1]
    stages = lasts if lasts[0].call.ended > end else lasts[1:]
    return {STEM: Point(stem.call.path, call=_turn(calls, stem.call)), **_named(calls, stages)}


def _named(calls: Sequence[Call], stages: Sequence[_Map]) -> dict[str, Point]:
    found = {}
    for number, stage in enumerate(stages, 1):
        found[f"{STAGE}{number}"] = Point(stage.call.path, call=_turn(calls, stage.call))
        activation = _activation(calls, stage.call)
        if activation is not None:
            found[f"{STAGE}{number}{PRE}"] = given_to(activation.path, _turn(calls, activation))
    return found


@dataclass(frozen=True)
class _Map:
    call: Call
    size: tuple[int, int]
    is_block: bool

    @property
    def n_positions(self) -> int:
        return self.size[0] * self.size[1]


def _maps(calls: Sequence[Call], input_size: tuple[int, int]) -> list[_Map]:
    """Outputs that may be a stage, in the order in which they are made, up to the pooling at the end."""
    steps = _steps(calls, input_size)
    within = tuple(f"{path}." for path in steps)
    found: list[_Map] = []
    for call in calls:
        size = _map_size(call.output, input_size)
        if size is None or not call.path or call.path.startswith(within):
            continue
        if size == (1, 1) and _pools(call, input_size):
            break
        is_step = call.path in steps and not isinstance(call.part, nn.Sequential)
        found.append(_Map(call, size, is_step and _n_layers(call.part) >= _BLOCK))
    return found


def _shrinking(maps: Sequence[_Map]) -> list[_Map]:
    """Up to the last map of the smallest size, in their order: those that are larger than all that follow."""
    least = min(one.n_positions for one in maps)
    found: list[_Map] = []
    for one in reversed(maps):
        larger = one.n_positions > found[-1].n_positions if found else one.n_positions == least
        if larger:
            found.append(one)
    return found[::-1]


def _map_size(seen: Seen | None, input_size: tuple[int, int]) -> tuple[int, int] | None:
    """Height and width of a map of the images; none where a tensor is no such map."""
    if seen is None or len(seen.shape) != _MAP_DIMENSIONS:
        return None
    height, width = seen.shape[2:]
    skew = abs(height * input_size[1] - width * input_size[0])
    return (height, width) if skew <= max(input_size) else None  # each side may be rounded


def _steps(calls: Sequence[Call], input_size: tuple[int, int]) -> set[str]:
    """Paths of the parts inside of which no stage is looked for."""
    steps: set[str] = set()
    rows: set[str] = set()
    for call in calls:
        before, after = _map_size(call.given, input_size), _map_size(call.output, input_size)
        if not call.path or before is None or after is None:
            continue
        if all(old < _SHRINKING * new for old, new in zip(before, after, strict=True)):
            (rows if isinstance(call.part, nn.Sequential) else steps).add(call.path)
    blocks = {call.path for call in calls if call.path in steps and _n_layers(call.part) >= _BLOCK}
    # Between blocks, a row without one brings maps to the next size, as ConvNeXt's norm and convolution do.
    between = {row for row in rows if not any(block.startswith(f"{row}.") for block in blocks)}
    return steps | (between if blocks else set())


def _pools(call: Call, input_size: tuple[int, int]) -> bool:
    """Whether it is pooling that leaves one position of several."""
    before = _map_size(call.given, input_size)
    return before not in (None, (1, 1)) and next(call.part.parameters(), None) is None


def _end_of_stem(calls: Sequence[Call], maps: Sequence[_Map]) -> int:
    """The moment from which on a map is no longer of the stem."""
    blocks = [one.call.began for one in maps if one.is_block]
    if blocks:
        return min(blocks)
    convolutions = sorted(call.began for call in calls if isinstance(call.part, nn.Conv2d))
    return convolutions[1] if len(convolutions) > 1 else calls[-1].ended


def _n_layers(part: nn.Module) -> int:
    return sum(isinstance(layer, _WITH_WEIGHTS) for layer in part.modules())


def _activation(calls: Sequence[Call], stage: Call) -> Call | None:
    """The call of an activation that made the map of a stage, as the last operation in it."""
    return next(
        (
            call
            for call in calls
            if isinstance(call.part, _ACTIVATIONS)
            and call.output is not None
            and stage.output is not None
            and call.output.tensor is stage.output.tensor
        ),
        None,
    )


def _turn(calls: Sequence[Call], call: Call) -> int:
    """Which of a part's calls this is; -1 for the last."""
    moments = [other.ended for other in calls if other.path == call.path]
    return -1 if call.ended == moments[-1] else moments.index(call.ended)
