"""The point of each feature's name in a network, and what is said where there is none."""

# B = samples, C = channels or classes, H, W = height and width, D = numbers in an embedding, P = tokens

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import nn

from trainables.config.objective_base import EMBEDDING, OR, PRE, STAGES
from trainables.errors import CacheError, StillhouseError
from trainables.models.distillation_token import distillation_heads
from trainables.models.embedding import classifier_of
from trainables.models.features.extended import Extended
from trainables.models.features.observing import Call, Seen, observed
from trainables.models.features.points import Point, given_to, part_of
from trainables.models.features.stages import STAGE, STEM, inner_network, seen_stages, stated_stages
from trainables.models.foreign.aligned import n_outputs_of
from trainables.models.foreign.ensemble import Ensemble
from trainables.models.foreign.extras import near, shown

LAST: Final = "last"
TOKENS: Final = "tokens"
FIRST_CONV: Final = "first_conv"
HEADS: Final = ("class_logits", "distillation_logits")
"""What the two heads of a network with a distillation token give."""
_OF_PARTS: Final = re.compile(r"ss_head|branch\d+")
"""What parts beside a prepared teacher give."""
_VECTOR, _TOKENS, _MAP = 2, 3, 4
"""Dimensions of a batch of vectors, of tokens and of maps."""


@dataclass(frozen=True)
class Place:
    """Where a feature is, and its shape for a batch."""

    point: Point
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Found:
    """All features that a network has, by name."""

    network: str
    places: Mapping[str, Place]
    error: type[StillhouseError]

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of all its stages, in their order."""
        return tuple(f"{STAGE}{number}" for number in sorted(_numbers(self.places)))

    def first(self, names: str) -> str:
        """Of names with `|` between them the first that the network has, or of all where it has none."""
        several = names.split(OR)
        has_stages = {STAGES} if self.stages else set()
        return next((name for name in several if name in self.places or name in has_stages), several[0])

    def meant(self, names: str) -> tuple[str, ...]:
        """The one that `first` gives, and for `stages` all of them, where the network has any."""
        name = self.first(names)
        return (self.stages if name == STAGES else ()) or (name,)

    def place(self, name: str) -> Place:
        """The place of one of them.

        Raises:
            StillhouseError: of the class `error`: there is none of that name.
        """
        if name not in self.places:
            key = f"{STAGE}1" if name == STAGES else name
            after = name.removesuffix(PRE)
            instead = ", or take the map after the activation (`teacher_maps: post` of fitnet and reviewkd)"
            raise self.error(
                f"{self.network} has no feature {name!r}; it has {', '.join(self.places) or 'none'}; name "
                "the part of the network whose output it is, beside its `name`, as "
                f"`features: {{{key}: PATH}}`{instead if after != name and after in self.places else ''}, or "
                "choose another network"
            )
        return self.places[name]


def find_points(
    network: nn.Module,
    *,
    n_classes: int,
    input_shape: tuple[int, int, int],
    device: torch.device,
    stated: Mapping[str, str],
    error: type[StillhouseError],
) -> Found:  # budget: what a network is, and what is known of it
    """Looks for every feature of a network; `stated` are module paths that the experiment file says.

    Where it says a stage, it says them all: those that are found, or stated by the network's class, do not
    count.

    Raises:
        StillhouseError: of the class `error`: `stated` names what is no part of the network, or gives no
            tensor of the kind that the name is for.
    """
    prefix, inner = inner_network(network)
    name = type(inner).__name__
    if isinstance(inner, Ensemble):
        raise error(f"features are those of one network, and this is the mean of {len(inner.members)}")
    seen = observed(network, input_shape=input_shape, device=device)
    own = stated_stages(inner)
    calls = [call for call in seen if call.path.startswith(prefix)]  # not what resizes, or stands beside it
    points = dict(_of_any(network, calls, n_classes))
    if own is None:
        points = {**seen_stages(calls, input_shape[1:]), **points}
    else:
        points = {**{name: replace(p, path=prefix + p.path) for name, p in own.items()}, **points}
    if any(name.startswith(STAGE) for name in stated):
        points = {name: point for name, point in points.items() if not name.startswith(STAGE)}
    for feature, path in stated.items():
        points[feature] = _stated_point(inner, feature, path, prefix, error)
    places = {feature: _placed(network, calls, feature, point) for feature, point in points.items()}
    for feature, point in _beside(network).items():
        places[feature] = _placed(network, seen, feature, point)
    for feature in stated:
        if places[feature] is None:
            raise error(
                f"`features: {{{feature}: {stated[feature]}}}`: this part of {name} gives no {_kind(feature)}"
            )
    return Found(name, _with_last({name: place for name, place in places.items() if place}), error)


def _of_any(network: nn.Module, calls: Sequence[Call], n_classes: int) -> Mapping[str, Point]:
    """What is found in one way in all networks."""
    found: dict[str, Point] = {}
    try:
        classifier = classifier_of(network, n_outputs_of(network, n_classes))
    except CacheError:  # it has no embedding then
        pass
    else:
        paths = {id(part): path for path, part in network.named_modules()}
        found[EMBEDDING] = given_to(paths[id(classifier)])
    convolutions = sorted((c for c in calls if isinstance(c.part, nn.Conv2d)), key=lambda call: call.began)
    if convolutions:
        found[FIRST_CONV] = Point(convolutions[0].path, call=0)
    heads = distillation_heads(network)
    if heads is not None:
        found |= {name: Point(path) for name, path in zip(HEADS, heads, strict=True)}
    tokens = [call for call in calls if call.path and call.output and len(call.output.shape) == _TOKENS]
    if tokens:
        found[TOKENS] = Point(tokens[-1].path)
    return found


def _beside(network: nn.Module) -> Mapping[str, Point]:
    """What parts beside the network give."""
    return network.points if isinstance(network, Extended) else {}


def _stated_point(
    network: nn.Module, feature: str, path: str, prefix: str, error: type[StillhouseError]
) -> Point:
    try:
        plain, _ = part_of(network, path)
    except AttributeError:
        close = near(path, [name for name, _ in network.named_modules() if name])
        children = [name for name, _ in network.named_children()]
        hint = f"nearest: {', '.join(close)}" if close else f"it has {shown(children)}"
        raise error(
            f"`features: {{{feature}: {path}}}`: {type(network).__name__} has no part {path!r}; {hint}"
        ) from None
    return Point(prefix + plain)


def _placed(network: nn.Module, calls: Sequence[Call], feature: str, point: Point) -> Place | None:
    """The point with its path made plain, and the shape there; none where nothing of the kind was seen."""
    path, _ = part_of(network, point.path)
    turns = [call for call in calls if call.path == path]
    if not -len(turns) <= point.call < len(turns):
        return None
    call = turns[point.call]
    seen: Seen | None = call.given if point.is_input else call.output
    if seen is None or len(seen.shape) != _dimensions(feature):
        return None
    # A stage that is overwritten in place becomes what the next part makes of it: its map after activation.
    becomes = feature == STEM or (feature.startswith(STAGE) and not feature.endswith(PRE))
    return Place(replace(point, path=path, copied=seen.is_overwritten and not becomes), seen.shape)


def _with_last(places: Mapping[str, Place]) -> Mapping[str, Place]:
    numbers = _numbers(places)
    if not numbers or LAST in places:
        return places
    return {**places, LAST: places[f"{STAGE}{max(numbers)}"]}


def _numbers(places: Mapping[str, Place]) -> list[int]:
    """Those of the stages."""
    return [int(name.removeprefix(STAGE)) for name in places if name.removeprefix(STAGE).isdigit()]


def _dimensions(feature: str) -> int:
    if feature in (EMBEDDING, *HEADS) or _OF_PARTS.fullmatch(feature):
        return _VECTOR
    return _TOKENS if feature == TOKENS else _MAP


def _kind(feature: str) -> str:
    kinds = {_VECTOR: "vector for each image", _TOKENS: "tokens for each image"}
    return kinds.get(_dimensions(feature), "map BxCxHxW")
