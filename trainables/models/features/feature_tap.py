"""A network's features by name, read off its calls: plain, compiled, in autocast, in ranks that share it."""

# B = samples, C = channels or classes, H, W = height and width, D = numbers in an embedding, P = tokens

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor, nn

from trainables.config.objective_base import STAGES
from trainables.errors import StillhouseError, TrialFailed
from trainables.models.features.observing import given_tensor, tensor_in
from trainables.models.features.points import Point
from trainables.models.features.search import Found, find_points
from trainables.tensors import at_least_fp32

ENERGY: Final = "energy."
"""Before the name of a map: the mean over its channels of its squares, BxHxW, in fp32."""


class FeatureTap:
    """Reads features off a network, which it does not change.

    Names are `stem`, `stage1`, `stage2`, … (BxCxHxW), `stageN.pre`, `last` (the last stage), `embedding`
    (BxD), `first_conv` (BxCxHxW), `tokens` (BxPxD, class token included), `class_logits` and
    `distillation_logits` (BxC), and before that of a map `energy.`. Features come out as the network made
    them, with gradient where there is one, in the precision of the call. Of `last|embedding` the first that
    the network has is read, under its own name. `stages` are all stages that it has, in their order and under
    their own names, and `energy.stages` their energies.
    """

    shapes: Mapping[str, tuple[int, ...]]
    """By name, of one sample: (C, H, W), (D,), (P, D), and (H, W) of an energy."""

    def __init__(  # noqa: PLR0913
        self,
        network: nn.Module,
        names: Sequence[str],
        *,
        n_classes: int,
        input_shape: tuple[int, int, int],
        device: torch.device,
        stated: Mapping[str, str] = MappingProxyType({}),
        error: type[StillhouseError] = TrialFailed,
    ) -> None:  # budget: what a network is, and what it is asked for
        """Finds them in one forward pass of a copy of the network, which is on the device.

        `n_classes` is of the data, `stated` what the experiment file says of the network: module paths by
        name, `input_shape` is (channels, height, width) of an image.

        Raises:
            StillhouseError: of the class `error`: the network has no such feature; it says which it has.
        """
        found = find_points(
            network, n_classes=n_classes, input_shape=input_shape, device=device, stated=stated, error=error
        )
        meant = [each for name in names for each in _meant(found, name)]
        bare = {name: name.removeprefix(ENERGY) for name in meant}
        places = {name: found.place(name) for name in dict.fromkeys(bare.values())}
        self.network = network
        self._error = error
        self.names = tuple(bare)
        self.points: Mapping[str, Point] = {name: place.point for name, place in places.items()}
        self.shapes = {
            name: places[of].shape[1:] if name in places else places[of].shape[2:]
            for name, of in bare.items()
        }

    def during(self, call: Callable[[], Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """What a call of the network gives, and the features in it, by name.

        The network must be called as it is, not in a compiled form: see `Tapped`.
        """
        listeners = _Listeners(self.network, self.points)
        listeners.start()
        try:
            output = call()
        finally:
            listeners.remove()
        return output, self.named(listeners.stop())

    def named(self, read: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The features that were asked for, of those that were read off."""
        unread = [name for name in self.points if name not in read]
        if unread:
            raise self._error(
                f"{type(self.network).__name__} made no {', '.join(unread)} in this call, as it did in "
                "evaluation mode; name another part of it as `features`, or choose another network"
            )
        return {
            name: read[name] if name in read else energy(read[name.removeprefix(ENERGY)])
            for name in self.names
        }


class Tapped(nn.Module):
    """A network whose call also gives its features: `(output, {name: feature})`; both share all weights.

    Its listeners stay on the network, silent in calls of the network itself, so that a compiler traces them
    and DistributedDataParallel sees all that the loss may use. Compile it as a whole. A copy of the network
    has copies of them: `untapped` takes them off.
    """

    def __init__(self, network: nn.Module, tap: FeatureTap) -> None:
        """The network is the one that the tap was made for."""
        super().__init__()
        self.network = network
        self._tap = tap
        self._listeners = _Listeners(network, tap.points)

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The network's output, and its features by name."""
        self._listeners.start()
        try:
            output: Tensor = self.network(images_BCHW)
        finally:
            read = self._listeners.stop()
        return output, self._tap.named(read)


def is_tapped(network: nn.Module) -> bool:
    """Whether something listens to a network."""
    return any(
        isinstance(hook, _Listener)
        for part in network.modules()
        for hook in (*part._forward_hooks.values(), *part._forward_pre_hooks.values())
    )


def untapped(network: nn.Module) -> nn.Module:
    """The same network, on which nothing listens any longer."""
    for part in network.modules():
        for hooks in (part._forward_hooks, part._forward_pre_hooks):
            for key in [key for key, hook in hooks.items() if isinstance(hook, _Listener)]:
                del hooks[key]
                part._forward_pre_hooks_with_kwargs.pop(key, None)
    return network


def _meant(found: Found, name: str) -> tuple[str, ...]:
    if name == f"{ENERGY}{STAGES}":
        return tuple(f"{ENERGY}{stage}" for stage in found.meant(STAGES))
    return found.meant(name)


def energy(map_BCHW: Tensor) -> Tensor:
    """BxHxW: the mean over the channels of a map's squares, in fp32 or more."""
    return at_least_fp32(map_BCHW).square().mean(dim=1)


class _Reading:
    """What is read off in a call, and whether anybody listens."""

    def __init__(self) -> None:
        self.listens = False
        self.read: dict[str, list[Tensor]] = {}


class _Listener:
    """Listens to one part of a network; silent unless somebody reads."""

    def __init__(self, reading: _Reading, name: str, copied: bool) -> None:
        self._reading, self._name, self._copied = reading, name, copied

    def note(self, tensor: Tensor | None) -> None:
        if tensor is not None:
            self._reading.read[self._name].append(tensor.clone() if self._copied else tensor)


class _OutputListener(_Listener):
    def __call__(self, _part: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        if self._reading.listens:
            self.note(tensor_in(output))


class _InputListener(_Listener):
    def __call__(self, _part: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        if self._reading.listens:
            self.note(given_tensor(args, named))


class _Listeners:
    """Those of all points of a network."""

    def __init__(self, network: nn.Module, points: Mapping[str, Point]) -> None:
        self._reading, self._points = _Reading(), points
        self._handles = []
        for name, point in points.items():
            part = network.get_submodule(point.path)
            if point.is_input:
                given = _InputListener(self._reading, name, point.copied)
                self._handles.append(part.register_forward_pre_hook(given, with_kwargs=True))
            else:
                made = _OutputListener(self._reading, name, point.copied)
                self._handles.append(part.register_forward_hook(made))

    def start(self) -> None:
        self._reading.read = {name: [] for name in self._points}
        self._reading.listens = True

    def stop(self) -> dict[str, Tensor]:
        """What was read since `start`, by the names of the points."""
        read, self._reading.read = self._reading.read, {}
        self._reading.listens = False
        return {name: read[name][point.call] for name, point in self._points.items() if read[name]}

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
