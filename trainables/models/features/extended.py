"""A network with parts beside it that make further features of its own."""

# B = images, C = classes or channels, D = numbers that a part gives, H, W = height and width

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from trainables.models.features.points import Point


class Tap(Protocol):
    """What reads features off a network."""

    network: nn.Module

    def during(self, call: Callable[[], Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """What a call of the network gives, and the features in it."""
        ...


@dataclass(frozen=True)
class Extra:
    """A part beside a network, which is called with some of its features."""

    part: nn.Module
    given: tuple[str, ...]
    """The features that its call is given, in this order."""
    gives: Mapping[str, str]
    """By the names of features, the paths within the part whose outputs BxD they are; `""` is the part."""


class Extended(nn.Module):
    """A network whose answers stay what they are, and beside it parts that are given its features.

    The parts run where somebody listens to them, and not otherwise. Their gradient stays out of the network,
    unless they are attached to it.
    """

    is_attached: bool = False

    def __init__(self, tap: Tap, extras: Mapping[str, Extra]) -> None:
        """The tap is of the network, for all that the parts are given."""
        super().__init__()
        # First, so that the last classifier that is listed is the network's own.
        self.parts = nn.ModuleDict({name: extra.part for name, extra in extras.items()})
        self.base = tap.network
        self.points = {
            feature: Point(f"parts.{name}.{path}".rstrip("."))
            for name, extra in extras.items()
            for feature, path in extra.gives.items()
        }
        self._tap = tap
        self._given = {name: extra.given for name, extra in extras.items()}

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """What the network gives."""
        if not any(part._forward_hooks for part in self.parts.modules()):
            answer: Tensor = self.base(images_BCHW)
            return answer
        answer, features = self._tap.during(lambda: self.base(images_BCHW))
        if not self.is_attached:
            features = {name: feature.detach() for name, feature in features.items()}
        for name, wanted in self._given.items():
            self.parts[name](*(features[one] for one in wanted))
        return answer
