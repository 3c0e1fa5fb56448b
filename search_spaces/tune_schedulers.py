"""Schedulers of a space as Ray Tune's, whose decisions depend on results and seed alone."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)

from search_spaces import scheduler_config
from search_spaces.domains import Listed
from search_spaces.space import SpaceConfig
from search_spaces.tune_domains import tune_domain
from trainables.config import digest_of
from trainables.errors import ConfigError

TIME_ATTR: Final = "epoch"


def scheduler(space: SpaceConfig, *, max_epochs: int, seed: int = 0) -> TrialScheduler:
    """The scheduler, on the metric and mode of `TuneConfig` (Tune refuses them in both places).

    Raises:
        ConfigError: the grace period, or the time to the first meeting, is longer than a trial.
    """
    key, epochs = space.scheduler.first_decision()
    if epochs > max_epochs:
        raise ConfigError(
            f"scheduler.{key} of space {space.name} is {epochs}; "
            f"allowed: at most {max_epochs}, the epochs of a trial"
        )
    match space.scheduler:
        case scheduler_config.AshaScheduler() as asha:
            return ASHAScheduler(
                time_attr=TIME_ATTR,
                max_t=max_epochs,
                grace_period=asha.grace_period,
                reduction_factor=asha.reduction_factor,
            )
        case scheduler_config.HyperBandScheduler() as hyperband:
            return HyperBandScheduler(
                time_attr=TIME_ATTR, max_t=max_epochs, reduction_factor=hyperband.reduction_factor
            )
        case scheduler_config.MedianScheduler() as median:
            return MedianStoppingRule(
                time_attr=TIME_ATTR,
                grace_period=median.grace_period,
                min_samples_required=median.min_samples_required,
            )
        case scheduler_config.PbtScheduler() as pbt:
            return ReplayablePbt(space, pbt, seed)
    return FIFOScheduler()  # type: ignore[no-untyped-call]


class ReplayablePbt(PopulationBasedTraining):
    """Population based training that decides the same again when the same results come in again.

    All trials meet at each interval (Tune's synchronous mode), and what is drawn there derives from the
    seed, the trial's place and the epoch. A search that goes on after its driver died hears its own results
    again from the ledger, and so makes the forks that it had made.
    """

    def __init__(self, space: SpaceConfig, config: scheduler_config.PbtScheduler, seed: int) -> None:
        """The mutations are the domains of the space but the student's, since a fork copies its weights."""
        self._space = space
        self._seed = seed
        super().__init__(
            time_attr=TIME_ATTR,
            perturbation_interval=config.perturbation_interval,
            hyperparam_mutations=_mutations(space),
            quantile_fraction=config.quantile_fraction,
            resample_probability=config.resample_probability,
            custom_explore_fn=self._tidy,
            log_config=False,
            synch=True,
        )

    def _checkpoint_or_exploit(
        self, trial: Any, tune_controller: Any, upper_quantile: list[Any], lower_quantile: list[Any]
    ) -> None:
        place = list(self._trial_state).index(trial)
        epoch = self._trial_state[trial].last_train_time
        with _drawing_from(digest_of([self._seed, place, epoch])):
            super()._checkpoint_or_exploit(trial, tune_controller, upper_quantile, lower_quantile)

    def _tidy(self, config: dict[str, Any]) -> dict[str, Any]:
        """Perturbed values back into their domains: Tune multiplies beyond the bounds."""
        tidied = copy.deepcopy(config)
        for objective in self._space.objective_names:
            for (section, name), domain in self._space.domains(objective).items():
                if name in tidied.get(section, {}):
                    tidied[section][name] = domain.tidy(tidied[section][name])
        return tidied


def _mutations(space: SpaceConfig) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    for section, name, domain in space.perturbed():
        values = list(domain.corners()) if isinstance(domain, Listed) else tune_domain(domain)
        found.setdefault(section, {})[name] = values
    return found


@contextmanager
def _drawing_from(digest: str) -> Iterator[None]:
    """Tune draws from the global generators of Python and NumPy: seeded here, and put back at the end."""
    number = int(digest[:8], 16)
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(number)
    np.random.seed(number)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
