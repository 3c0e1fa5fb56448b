"""Schedulers of a space as Ray Tune's, and what their decisions depend on.

Population based training and HyperBand, which let trials wait for each other, decide from results, seed and
the order in which trials were proposed: which slot is the faster, and whose result comes first, changes
nothing. One exception is HyperBand's: a trial whose proxy died is put into the bracket that is filled last.

ASHA and median stopping wait for nobody and judge a trial against what the others have told until then.
What they stop may thus differ from run to run where several slots train at once. FIFO decides nothing.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from ray.tune.experiment import Trial
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

    All trials meet at each interval, and what is drawn there derives from the seed, the trial's place and
    the epoch. A search that goes on after its driver died hears its own results again from the ledger, and
    so makes the forks that it had made.

    A meeting is held once every trial that is not finished stands paused, so with its checkpoint kept. Tune's
    own synchronous mode holds it within the last result: it saves a trial a second time whose checkpoint is
    under way, and counts one save only, so that the trial's next checkpoint overwrites the one that forks
    go on from. A fork that started late then went on from a later epoch. Nor does anyone wait here for a
    trial that failed or ended, whether it came to its end before or after the others had met the epoch.
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

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Take a trial in; one whose proxy died comes again, and keeps what it had told."""
        known = self._trial_state.get(trial)
        super().on_trial_add(tune_controller, trial)
        if known is not None:
            self._trial_state[trial] = known

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Pause a trial that has come to the epoch of the next meeting."""
        if result[TIME_ATTR] < self._next_perturbation_sync:
            return TrialScheduler.CONTINUE
        self._save_trial_state(self._trial_state[trial], result[TIME_ATTR], result, trial)
        return TrialScheduler.PAUSE

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The trial that is furthest behind, after the meeting if all are there; Tune asks all the time."""
        living = [trial for trial in tune_controller.get_trials() if not trial.is_finished()]
        if living and all(trial.status == Trial.PAUSED for trial in living):
            self._meet(tune_controller)
        return super().choose_trial_to_run(tune_controller)

    def _meet(self, tune_controller: Any) -> None:
        places = list(self._trial_state)
        lower, upper = self._quantiles()
        for trial in upper:
            self._trial_state[trial].last_checkpoint = trial.checkpoint
        for trial in lower:
            epoch = self._trial_state[trial].last_train_time
            with _drawing_from(digest_of([self._seed, places.index(trial), epoch])):
                self._exploit(tune_controller, trial, random.choice(upper))  # noqa: S311
        self._next_perturbation_sync += self._perturbation_interval

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
