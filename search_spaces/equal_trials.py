"""Searches that give every objective the same number of trials, for comparisons of each at its best."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, Final

import numpy as np

from search_spaces.domains import N_SD, Bell, Domain, Listed, Range
from search_spaces.space import SpaceConfig
from trainables.config import digest_of
from trainables.config.base import Scalar

_GOLDEN: Final = (math.sqrt(5) - 1) / 2


def in_turns(space: SpaceConfig, *, trials: int, seed: int) -> list[dict[str, Any]]:
    """So many whole configurations, of one objective after the other, again and again.

    The first ones of an objective are the points that the file wants first; what they leave out, and all
    others, are spread over their domains (see `spread`), so that with few trials too no objective misses a
    learning rate that another one has. A value depends on the seed, the objective and its turn alone: a
    larger budget begins with the trials of a smaller one.
    """
    names = space.objective_names
    first = {
        name: [p for p in space.first_points() if p.get("objective", names[0]) == name] for name in names
    }
    configs = []
    for number in range(trials):
        turn, name = number // len(names), names[number % len(names)]
        config: dict[str, Any] = {"objective": name}
        for (section, key), domain in space.domains(name).items():
            stream = digest_of([seed, name, section, key])
            config.setdefault(section, {})[key] = spread(domain, turn, stream)
        for section, values in first[name][turn].items() if turn < len(first[name]) else ():
            config[section] = {**config[section], **values} if isinstance(values, dict) else values
        configs.append(config)
    return configs


def spread(domain: Domain, turn: int, stream: str) -> Scalar:
    """The value of a turn, counted from 0: over any few turns evenly spread over the domain.

    A list is gone through in a random order, then in another one. A range is met by the multiples of the
    golden ratio from a random start, modulo 1 (an additive recurrence, whose turns never crowd), in its
    logarithm where the domain is logarithmic. `stream` is a digest that says which random numbers.
    """
    if isinstance(domain, Listed):
        block, place = divmod(turn, len(domain.arguments))
        order = _random(stream, block).permutation(len(domain.arguments))
        value: Scalar = domain.arguments[order[place]]
        return value
    share = (_random(stream, 0).random() + turn * _GOLDEN) % 1
    return domain.tidy(_within(domain, share))


def _within(domain: Domain, share: float) -> float:
    """The value below which a share of the domain's draws lies."""
    if isinstance(domain, Bell):
        bell = NormalDist()
        tail = bell.cdf(-N_SD)
        return domain.mean + domain.sd * bell.inv_cdf(tail + share * (1 - 2 * tail))
    if not isinstance(domain, Range):
        raise TypeError(f"a domain of kind {domain.kind} has no order")
    low, high = domain.low, domain.high
    if domain.whole and not domain.stepped:  # a whole number stands for all that is rounded to it
        low, high = low - 0.5, high + 0.5
    if domain.log:
        return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    return low + share * (high - low)


def _random(stream: str, block: int) -> np.random.Generator:
    return np.random.default_rng([int(stream[:16], 16), block])
