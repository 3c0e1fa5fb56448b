"""A search space as Ray Tune's searcher, and all together as the plan of a search."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import optuna
from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

from search_spaces.domains import Domain, Range
from search_spaces.equal_trials import in_turns
from search_spaces.space import GRID_KEY, SpaceConfig, matches
from search_spaces.tune_domains import tune_domain
from search_spaces.tune_schedulers import scheduler
from trainables.errors import ConfigError

MODE: Final = "max"

Proposer = BasicVariantGenerator | ConcurrencyLimiter | OptunaSearch


class CostAwareOptuna(OptunaSearch):
    """Optuna's multi-objective mode; a student that ended without one of the figures counts as failed.

    Tune's own tells the study a list with a hole, which the study refuses: the student would stay unfinished.
    """

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the study all figures of the last epoch, or that there are none."""
        if result and not all(math.isfinite(result.get(name, math.nan)) for name in self.metric):
            result, error = None, True
        super().on_trial_complete(trial_id, result, error)


def param_space(space: SpaceConfig, *, trials: int, seed: int) -> dict[str, Any]:
    """What `tune.Tuner` is given: {"objective": ..., "kd": {...}, "student": {...}, "training": {...}}.

    A grid is one list of whole configurations, so that objectives do not multiply each other; so are the
    trials of a search that gives each objective the same. With Optuna it is empty: there the searcher itself
    draws the objective first, then that objective's parameters.
    """
    if space.search.each_objective:
        return {GRID_KEY: tune.grid_search(in_turns(space, trials=trials, seed=seed))}
    if space.search.algorithm == "optuna":
        return {}
    if space.search.algorithm == "grid":
        return {GRID_KEY: tune.grid_search(space.grid())}
    drawn: dict[str, Any] = {}
    if len(space.objective_names) > 1:
        drawn["objective"] = tune.choice(list(space.objective_names))
    for objective in space.objective_names:
        for (section, name), domain in space.domains(objective).items():
            drawn.setdefault(section, {})[name] = tune_domain(domain)
    return drawn


def n_samples(space: SpaceConfig, *, trials: int) -> int:
    """`TuneConfig.num_samples` for a budget of trials: a list of whole configurations is walked once."""
    return 1 if space.search.algorithm == "grid" or space.search.each_objective else trials


def searcher(
    space: SpaceConfig,
    *,
    trials: int,
    seed: int,
    proposed: Sequence[Mapping[str, Any]] = (),
    concurrent: int = 0,
) -> Proposer:
    """The search algorithm, which proposes the points to evaluate first; the same seed gives the same draws.

    `proposed` holds the samples of an interrupted run of this search, in their order: they come first
    again. Random draws and grids repeat themselves from the seed and need none of it. Points beyond the
    budget of trials are left out. Give `TuneConfig` metric and mode of the plan. `concurrent` trials may live
    at once, 0 for all: Tune itself would start every trial of a grid, each in a process of its own.

    Raises:
        ConfigError: a grid has more points than the budget has trials.
    """
    if space.search.algorithm == "grid":
        if (size := len(space.grid())) > trials:
            raise ConfigError(
                f"the grid of space {space.name} has {size} points, the budget {trials} trials; "
                f"set budget.trials to {size} or shorten the lists"
            )
        return BasicVariantGenerator(random_state=seed, max_concurrent=concurrent)
    if space.search.each_objective:
        return BasicVariantGenerator(random_state=seed, max_concurrent=concurrent)
    points = space.first_points()
    if space.search.algorithm == "random":
        return BasicVariantGenerator(
            points_to_evaluate=points[:trials], random_state=seed, max_concurrent=concurrent
        )
    again = [dict(sample) for sample in proposed]
    points = again + [point for point in points if not any(matches(sample, point) for sample in again)]
    # What is proposed again draws nothing: with the old seed its successors would repeat it.
    study = _study(space, points[:trials], seed=seed + len(again))
    return ConcurrencyLimiter(study, max_concurrent=concurrent) if concurrent else study


def _study(space: SpaceConfig, points: Sequence[Mapping[str, Any]], *, seed: int) -> OptunaSearch:
    # It would announce, beside the progress that people see, a study that they never named.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    draw, first = functools.partial(_suggest, space), [_flat(point) for point in points]
    costs = [cost.metric for cost in space.search.minimise]
    figure = space.search.rank_by.metric
    if not costs:
        return OptunaSearch(draw, metric=figure, mode=MODE, points_to_evaluate=first, seed=seed)
    metrics, modes = [figure, *costs], [MODE, *("min" for _ in costs)]
    return CostAwareOptuna(draw, metric=metrics, mode=modes, points_to_evaluate=first, seed=seed)


@dataclass(frozen=True)
class SearchPlan:
    """What a Tuner needs to walk through a space."""

    param_space: dict[str, Any]
    searcher: Proposer
    scheduler: TrialScheduler
    num_samples: int
    """`TuneConfig.num_samples`."""
    trials: int
    """Students that will be proposed: the budget, or the whole grid."""
    metric: str | None
    """`TuneConfig.metric`; none where the searcher weighs several, which it then knows alone."""
    mode: str | None
    """`TuneConfig.mode`, none likewise."""

    def widen(self, concurrent: int) -> None:
        """Let so many trials live at once, when that is more than now: there are new slots."""
        if not isinstance(self.searcher, OptunaSearch) and 0 < self.searcher.max_concurrent < concurrent:
            self.searcher.max_concurrent = concurrent


def search_plan(
    space: SpaceConfig,
    *,
    trials: int,
    seed: int,
    max_epochs: int,
    proposed: Sequence[Mapping[str, Any]] = (),
    concurrent: int = 0,
) -> SearchPlan:
    """Domains, searcher and scheduler together; arguments and errors are those of the functions above.

    Where the scheduler pauses trials there is no limit to those that live: paused ones would count too.

    Raises:
        ConfigError: the budget does not hold the grid, or the grace period is longer than a trial.
    """
    return SearchPlan(
        param_space=param_space(space, trials=trials, seed=seed),
        searcher=searcher(
            space,
            trials=trials,
            seed=seed,
            proposed=proposed,
            concurrent=0 if space.scheduler.pauses else concurrent,
        ),
        scheduler=scheduler(space, max_epochs=max_epochs, seed=seed),
        num_samples=n_samples(space, trials=trials),
        trials=len(space.grid()) if space.search.algorithm == "grid" else trials,
        metric=None if space.search.minimise else space.search.rank_by.metric,
        mode=None if space.search.minimise else MODE,
    )


def _suggest(space: SpaceConfig, trial: Any) -> dict[str, Any]:
    """Define-by-run for Optuna: parameters of an objective that was not drawn are never asked for."""
    names = list(space.objective_names)
    objective = trial.suggest_categorical("objective", names) if len(names) > 1 else names[0]
    drawn: dict[str, Any] = {"objective": objective}
    for (section, name), domain in space.domains(objective).items():
        drawn[f"{section}/{name}"] = domain.tidy(_suggest_one(trial, f"{section}/{name}", domain))
    return drawn


def _suggest_one(trial: Any, name: str, domain: Domain) -> Any:
    if not isinstance(domain, Range):
        return trial.suggest_categorical(name, list(domain.corners()))
    if domain.whole:
        step = int(domain.step or 1)
        if domain.log:  # Optuna has no step on a logarithmic scale: `tidy` rounds
            return trial.suggest_int(name, int(domain.low), int(domain.high), log=True)
        return trial.suggest_int(name, int(domain.low), int(domain.high), step=step)
    step_size = None if domain.log else domain.step
    return trial.suggest_float(name, domain.low, domain.high, step=step_size, log=domain.log)


def _flat(point: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in point.items():
        if isinstance(value, dict):
            flat |= {f"{key}/{name}": held for name, held in value.items()}
        else:
            flat[key] = value
    return flat
