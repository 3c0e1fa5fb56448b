"""When a population meets, and that its forks depend on results and seed alone.

What stands in for Tune's controller can neither save nor pause a trial: a meeting asks for neither.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from search_spaces.space import SpaceConfig
from search_spaces.tune_schedulers import scheduler

RATES = (0.001, 0.002, 0.003, 0.004, 0.05)
INTERVAL, EPOCHS = 3, 9
SCORES = (0.5, 0.25, 0.5, 0.75, 0.75)
"""By place, after each interval; two pairs are equal."""


class Population:
    """Trials and what a scheduler is shown of them; a checkpoint is the place and epoch that it is of."""

    def __init__(self) -> None:
        space = SpaceConfig.from_plain(
            {
                "name": "rates",
                "objectives": {"ce": {}},
                "training": {"lr": {"loguniform": [1e-4, 1e-1]}},
                "search": {"algorithm": "random"},
                "scheduler": {"name": "pbt", "perturbation_interval": INTERVAL, "quantile_fraction": 0.4},
            }
        )
        self.search_alg = None
        self.scheduler: Any = scheduler(space, max_epochs=EPOCHS, seed=5)
        self.scheduler.set_search_properties("selection/accuracy", "max")
        self.trials: list[Any] = [
            Trial("student", config={"training": {"lr": rate}}, trial_id=f"{place:05d}", stub=True)
            for place, rate in enumerate(RATES)
        ]
        for trial in self.trials:
            self.add(trial)
            trial.set_status(Trial.RUNNING)

    def add(self, trial: Any) -> None:
        """Tune does so at first, and again when a trial's proxy has died."""
        self.scheduler.on_trial_add(self, trial)

    def get_trials(self) -> list[Any]:
        return self.trials

    def get_live_trials(self) -> set[Any]:
        return set(self.trials)  # Tune leaves those in it that failed

    def tell(self, place: int, epoch: int) -> str:
        result = {"epoch": epoch, "selection/accuracy": SCORES[place]}
        decision: str = self.scheduler.on_trial_result(self, self.trials[place], result)
        return decision

    def saved(self, place: int, epoch: int) -> None:
        """The checkpoint of a trial that is to pause has come, and it is paused."""
        manager: Any = self.trials[place].run_metadata.checkpoint_manager
        manager._latest_checkpoint_result = SimpleNamespace(checkpoint=(place, epoch))
        self.trials[place].set_status(Trial.PAUSED)

    def asked(self) -> Any:
        """What Tune's loop is told to run next."""
        return self.scheduler.choose_trial_to_run(self)

    def students(self) -> list[tuple[float, Any]]:
        return [(trial.config["training"]["lr"], trial.checkpoint) for trial in self.trials]


def meet(population: Population, order: Sequence[int], epoch: int) -> None:
    """All come to an epoch and are saved, in this order, and then meet."""
    for place in order:
        assert population.tell(place, epoch) == TrialScheduler.PAUSE
        random.random()
        population.saved(place, epoch)
        chosen = population.asked()
        assert (chosen is None) == (place != order[-1])
    for trial in population.trials:
        trial.set_status(Trial.RUNNING)


@pytest.fixture
def population() -> Iterator[Population]:
    yield Population()


def test_forks_are_the_same_in_whichever_order_results_come() -> None:
    found = set()
    for order in itertools.islice(itertools.permutations(range(len(RATES))), 0, None, 7):
        population = Population()
        meet(population, order, INTERVAL)
        first = tuple(population.students())
        meet(population, order[::-1], 2 * INTERVAL)
        found.add((first, tuple(population.students())))
    assert len(found) == 1
    [(first, second)] = found
    assert all(epoch == INTERVAL for _, (_, epoch) in first)
    assert sum(rate not in RATES for rate, _ in first) == 2
    assert all(epoch == 2 * INTERVAL for _, (_, epoch) in second)


def test_nobody_forks_while_a_checkpoint_is_under_way(population: Population) -> None:
    for place in range(len(RATES)):
        assert population.tell(place, INTERVAL) == TrialScheduler.PAUSE
    for place in range(len(RATES) - 1):
        population.saved(place, INTERVAL)
    assert population.asked() is None
    assert [rate for rate, _ in population.students()] == list(RATES)
    population.saved(len(RATES) - 1, INTERVAL)
    assert population.asked() is not None
    assert [rate for rate, _ in population.students()] != list(RATES)


@pytest.mark.parametrize("end", [Trial.ERROR, Trial.TERMINATED])
@pytest.mark.parametrize("last", [True, False])
def test_nobody_waits_for_a_trial_that_came_to_its_end(population: Population, end: str, last: bool) -> None:
    """Neither where it ends before the others have come, nor where it is the last of which news comes."""
    if not last:
        population.trials[0].set_status(end)
    for place in range(1, len(RATES)):
        population.tell(place, INTERVAL)
        population.saved(place, INTERVAL)
    if last:
        assert population.asked() is None
        population.trials[0].set_status(end)
    assert population.asked() is not None
    assert population.students()[0] == (RATES[0], None)
    assert sum(rate not in RATES for rate, _ in population.students()) == 2


def test_a_trial_whose_proxy_died_meets_the_others_where_it_would_have(population: Population) -> None:
    meet(population, range(len(RATES)), INTERVAL)
    assert population.tell(1, INTERVAL + 1) == TrialScheduler.CONTINUE
    population.add(population.trials[1])
    assert population.tell(1, INTERVAL + 1) == TrialScheduler.CONTINUE
    again = Population()
    meet(again, range(len(RATES)), INTERVAL)
    for each in (population, again):
        meet(each, range(len(RATES)), 2 * INTERVAL)
    assert population.students() == again.students()
