"""What the later stages of a network make of the map of an earlier one, as a network of its own.

Branches at a network's stages, and heads that take what several networks made, are built of the network
itself in this way: its own later stages, with weights of their own.
"""

# B = images, C = channels or classes, H, W = height and width

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.dropout import _DropoutNd

from trainables.config.objective_base import EMBEDDING, STAGES
from trainables.errors import TrialFailed
from trainables.models.features.cutting import Shortcut, rest_of
from trainables.models.features.feature_tap import ENERGY, FeatureTap, energy, untapped
from trainables.models.features.search import LAST
from trainables.models.features.stages import inner_network
from trainables.models.features.traced import BATCHES, NAMED, traced
from trainables.models.foreign.copies import copied

_MODES: Final = (False, True)
"""Evaluation and training."""
_SEED: Final = 0
_MAP_DIMENSIONS: Final = 3
"""Of one sample's map."""
_RTOL, _ATOL = 1e-4, 1e-5


class LaterStages(nn.Module):
    """The part of a network behind one of its maps: `later_stages` makes it.

    Its parameters are those of the later stages alone, below `parts` under the network's own names.
    """

    shapes: Mapping[str, tuple[int, ...]]
    """Of the features, by name and of one sample."""

    def __init__(
        self, parts: nn.Module, graphs: Mapping[bool, fx.Graph], shapes: Mapping[str, tuple[int, ...]]
    ) -> None:
        """The graphs, for training (true) and for evaluation, find in `parts` what they call."""
        super().__init__()
        self.parts = parts
        self.shapes = dict(shapes)
        self.overwrites = False
        """Whether it changes the map that it is given in place, and so needs a copy of it."""
        self._graphs = dict(graphs)

    def forward(self, map_BCHW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits BxC, and the features that were asked for, by name; the map stays as it is."""
        given_BCHW = map_BCHW.clone() if self.overwrites else map_BCHW
        graph = self._graphs[self.training]
        logits_BC, read = fx.Interpreter(self.parts, graph=graph).run(given_BCHW)
        return logits_BC, {
            name: read[name] if name in read else energy(read[name.removeprefix(ENERGY)])
            for name in self.shapes
        }


def later_stages(
    network: nn.Module,
    stage: str,
    names: Sequence[str] = (LAST, EMBEDDING),
    *,
    n_classes: int,
    input_shape: tuple[int, int, int],
    stated: Mapping[str, str] = MappingProxyType({}),
) -> LaterStages:  # budget: what a network is, where it is cut, and what is wanted of the rest
    """The part of a network behind the map of a stage (`stage1`, …), with copies of the network's weights.

    `names` are features that come behind that map, as `FeatureTap` names them, `stated` module paths by name
    from the experiment file, `input_shape` is (channels, height, width) of an image. The network is on its
    device, and is not changed. What comes out is compared with what the network gives, in training and in
    evaluation mode.

    Raises:
        TrialFailed: the network has no such map or feature; its forward pass cannot be followed; or what
            follows the map also uses what was computed before it.
    """
    watched = untapped(copied(network))
    tap = FeatureTap(
        watched,
        (stage, *names),
        n_classes=n_classes,
        input_shape=input_shape,
        device=next(network.parameters()).device,
        stated=stated,
    )
    title = type(inner_network(network)[1]).__name__
    if stage not in tap.points or len(tap.shapes[stage]) != _MAP_DIMENSIONS:
        raise TrialFailed(
            f"{title}: a branch begins at one map of the network, and {stage!r} is none; choose a stage, as "
            "stage1"
        )
    is_asked = stage in names or STAGES in names
    shapes = {name: shape for name, shape in tap.shapes.items() if name != stage or is_asked}
    wanted = tuple(dict.fromkeys(name.removeprefix(ENERGY) for name in shapes))
    try:
        found = {mode: traced(copied(watched).train(mode), tap.points, input_shape) for mode in _MODES}
        graphs = {mode: rest_of(one, stage, wanted, tap.points) for mode, one in found.items()}
        constants = {path: value for one in found.values() for path, value in one.constants.items()}
        parts = _parts(untapped(copied(network)), graphs.values(), constants)
        branch = LaterStages(parts, graphs, shapes)
        branch.overwrites = _overwrites(branch, tap, stage, input_shape)
    except Exception as error:  # a user's network may raise anything
        raise TrialFailed(_refusal(title, stage, error)) from error
    return branch.train(network.training)


def _parts(network: nn.Module, graphs: Iterable[fx.Graph], constants: Mapping[str, Tensor]) -> nn.Module:
    """A module that holds what the graphs call and fetch, of a network, at the same paths."""
    paths = [str(node.target) for graph in graphs for node in graph.nodes if node.op in NAMED]
    root = nn.Module()
    for path in sorted(dict.fromkeys(paths), key=lambda path: path.count(".")):  # a part before its own parts
        *above, name = path.split(".")
        place = root
        for step in above:
            if step not in place._modules:
                place.add_module(step, nn.Module())
            place = place.get_submodule(step)
        if name in place._modules or name in place._parameters or name in place._buffers:
            continue
        if path in constants:
            place.register_buffer(name, constants[path], persistent=False)
            continue
        owner = network.get_submodule(".".join(above))
        value = getattr(owner, name)
        if isinstance(value, nn.Module):
            place.add_module(name, value)
        elif isinstance(value, nn.Parameter):
            place.register_parameter(name, value)
        else:
            is_kept = name in owner._buffers and name not in owner._non_persistent_buffers_set
            place.register_buffer(name, value, persistent=is_kept)
    return root


def _overwrites(branch: LaterStages, tap: FeatureTap, stage: str, input_shape: tuple[int, int, int]) -> bool:
    """Whether a branch changes the map that it is given, once it is seen to give what the network gives.

    Raises:
        Shortcut: it gives something else, in one of the modes.
    """
    network, tried, point = tap.network, copied(branch), tap.points[stage]
    device = next(network.parameters()).device
    images_BCHW = torch.randn(BATCHES[0], *input_shape, generator=torch.Generator().manual_seed(_SEED))
    images_BCHW = images_BCHW.to(device)
    part = network.get_submodule(point.path)
    # Both draw the same masks behind the map, where functions draw some.
    place = part.register_forward_pre_hook if point.is_input else part.register_forward_hook
    handle = place(_seed)
    overwrites = False
    try:
        for mode in _MODES:
            for one in (network, tried):
                _without_dropout(one.train(mode))
            with (
                torch.inference_mode(mode=False),
                torch.no_grad(),
                torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
            ):
                logits_BC, features = tap.during(lambda: network(images_BCHW))
                given_BCHW = features[stage].clone()
                version = given_BCHW._version
                _seed()
                own_BC, own = tried(given_BCHW)
            overwrites |= given_BCHW._version != version
            _compare({"logits": own_BC, **own}, {**features, "logits": logits_BC}, mode)
    finally:
        handle.remove()
    return overwrites


def _without_dropout(network: nn.Module) -> None:
    """Masks are drawn in an order that what a branch leaves out, such as auxiliary logits, takes part in."""
    for part in network.modules():
        if isinstance(part, _DropoutNd):
            part.eval()


def _seed(*_: object) -> None:
    torch.manual_seed(_SEED)


def _compare(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], mode: bool) -> None:
    told = "training" if mode else "evaluation"
    for name, value in found.items():
        wanted = expected[name]
        is_same = value.shape == wanted.shape and value.dtype == wanted.dtype
        if not is_same or not torch.allclose(value, wanted, rtol=_RTOL, atol=_ATOL, equal_nan=True):
            raise Shortcut(f"in {told} mode {name} comes out otherwise than in the network")


def _refusal(title: str, stage: str, error: Exception) -> str:
    if isinstance(error, Shortcut):
        return (
            f"{title}: what follows {stage} cannot be a network of its own: {error}; choose another stage, "
            "or a network whose stages use nothing but the map of the stage before"
        )
    return (
        f"{title}: its forward pass cannot be followed ({_first_line(error)}), so no branch can be made of "
        "its later stages; choose a network by name, or one whose forward pass asks nothing of the images "
        "but their size"
    )


def _first_line(error: Exception) -> str:
    """Without the operation's listing that torch adds."""
    line = next(iter(str(error).strip().splitlines()), "no reason given").strip()
    return f"{type(error).__name__}: {line}"
