"""Searches that give every objective the same number of trials, for comparisons of each at its best."""

from __future__ import annotations

from typing import Any

import numpy as np

from search_spaces.space import SpaceConfig
from search_spaces.tune_domains import tune_domain
from trainables.config import digest_of


def in_turns(space: SpaceConfig, *, trials: int, seed: int) -> list[dict[str, Any]]:
    """So many whole configurations, of one objective after the other, again and again.

    The first ones of an objective are the points that the file wants first; what they leave out, and all
    others, are drawn. A draw depends on the seed, the objective and its turn alone, so that a larger budget
    begins with the trials of a smaller one.
    """
    names = space.objective_names
    first = {
        name: [p for p in space.first_points() if p.get("objective", names[0]) == name] for name in names
    }
    configs = []
    for number in range(trials):
        turn, name = number // len(names), names[number % len(names)]
        draws = np.random.RandomState(int(digest_of([seed, name, turn])[:8], 16))
        config: dict[str, Any] = {"objective": name}
        for (section, key), domain in space.domains(name).items():
            config.setdefault(section, {})[key] = tune_domain(domain).sample(random_state=draws)
        for section, values in first[name][turn].items() if turn < len(first[name]) else ():
            config[section] = {**config[section], **values} if isinstance(values, dict) else values
        configs.append(config)
    return configs
