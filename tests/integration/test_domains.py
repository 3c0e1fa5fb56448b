"""A search space in Ray Tune's own hands: whatever its searchers propose, the space can read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from pydantic import TypeAdapter
from ray import tune
from ray.tune.experiment import Experiment
from ray.tune.registry import register_trainable
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

from cluster.session import connect
from orchestrator.config.loading import SPACES_FOLDER, load_space, shipped
from search_spaces.space import ResolvedSample, SpaceConfig
from search_spaces.tune_plan import n_samples, param_space, search_plan, searcher
from search_spaces.tune_schedulers import scheduler
from trainables.config import ObjectiveConfig
from trainables.config.metrics import ACCURACY
from trainables.errors import ConfigError

N_DRAWS = 40
# Shipped spaces that only a grid can walk, and what it proposes.
GRIDS = {"ce": [{"training.lr": lr} for lr in (0.01, 0.02, 0.05, 0.1, 0.2)]}
EVERY_RANGE = {
    "uniform": [1, 8],
    "quniform": [1, 8, 0.1],
    "loguniform": [1, 8],
    "qloguniform": [1, 8, 0.5],
    "randint": [1, 9],
    "qrandint": [2, 8, 2],
    "lograndint": [1, 9],
    "qlograndint": [2, 8, 2],
    "randn": [4, 1],
    "normal": [4, 1],
    "choice": [1, 2.5, 4],
}


class _Scored(tune.Trainable):
    def setup(self, config: dict[str, Any]) -> None:
        self.epoch = 0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.epoch = 0
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {"epoch": self.epoch}

    def step(self) -> dict[str, Any]:
        self.epoch += 1
        return {"epoch": self.epoch, ACCURACY: self.epoch / 10}


@pytest.fixture(scope="module")
def ray_local() -> Iterator[None]:
    with connect("local", cpus=2):
        yield


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        (name, algorithm)
        for name in shipped(SPACES_FOLDER)
        for algorithm in ("random", "optuna")
        # Optuna takes no turns: it chooses the objectives itself.
        if name not in GRIDS and (algorithm == "random" or not load_space(name).search.each_objective)
    ],
)
def test_every_proposal_resolves_and_the_points_of_the_file_come_first(name: str, algorithm: str) -> None:
    space = _with(load_space(name), algorithm=algorithm)
    choices = _proposals(space)
    assert len(choices) == N_DRAWS
    for choice in choices:
        TypeAdapter(ObjectiveConfig).validate_python(choice.objective)
    # A point of papers' values says nothing of the recipe: what a space searches of it is drawn.
    points = zip(choices, space.first_points(), strict=False)
    first = [space.resolve({"training": choice.training, **point}) for choice, point in points]
    assert len(first) == len(space.first_points())
    assert [c.parameters for c in choices[: len(first)]] == [c.parameters for c in first]
    assert {c.objective["name"] for c in choices} == set(space.objective_names)


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [("random", kind) for kind in EVERY_RANGE]
    + [("optuna", kind) for kind in EVERY_RANGE if kind not in ("randn", "normal")],
)
def test_every_domain_is_drawn_within_what_was_proven(algorithm: str, kind: str) -> None:
    objectives = {"kd": {"temperature": {kind: EVERY_RANGE[kind]}}}
    space = _space(objectives, search={"algorithm": algorithm, "points_to_evaluate": []})
    domain = space.domains("kd")["kd", "temperature"]
    values = [choice.parameters["temperature"] for choice in _proposals(space)]
    assert all(domain.contains(value) for value in values)
    assert len(set(values)) > 2
    assert {type(value) for value in values} <= {type(corner) for corner in domain.corners()}


@pytest.mark.parametrize("algorithm", ["random", "optuna"])
def test_the_same_seed_gives_the_same_proposals_and_another_gives_others(algorithm: str) -> None:
    space = _with(load_space("digits"), algorithm=algorithm)
    first = [choice.parameters for choice in _proposals(space, seed=1)]
    assert [choice.parameters for choice in _proposals(space, seed=1)] == first
    assert [choice.parameters for choice in _proposals(space, seed=2)] != first


@pytest.mark.parametrize("algorithm", ["random", "optuna"])
def test_points_of_ones_own_come_first_and_what_they_leave_out_is_drawn(algorithm: str) -> None:
    points = [{"objective": "dkd", "beta": 2.0, "student.width": 8}, {"objective": "kd"}]
    space = _space(
        {"kd": {"temperature": {"uniform": [1, 8]}}, "dkd": {"beta": {"loguniform": [0.5, 10]}}},
        student={"width": {"choice": [4, 8]}},
        search={"algorithm": algorithm, "points_to_evaluate": points},
    )
    first, second = _proposals(space)[:2]
    assert first.parameters == points[0]
    assert second.parameters["objective"] == "kd"
    assert set(second.parameters) == {"objective", "temperature", "student.width"}


def test_points_never_exceed_the_budget() -> None:
    space = _with(load_space("digits"), algorithm="random")
    assert len(_proposals(space, trials=2)) == 2


def test_a_grid_proposes_each_point_of_the_union_once() -> None:
    space = _grid()
    choices = _proposals(space, trials=10)
    assert n_samples(space, trials=10) == 1
    assert [choice.parameters for choice in choices] == [
        space.resolve({"grid": config}).parameters for config in space.grid()
    ]
    temperatures = [("kd", t, w) for t, w in itertools.product((1, 2, 4), (4, 8))]
    betas = [("dkd", b, w) for b, w in itertools.product((1, 8), (4, 8))]
    flat = [_flat(choice) for choice in choices]
    assert sorted(flat) == sorted(temperatures + betas)


@pytest.mark.parametrize(("name", "points"), GRIDS.items())
def test_a_shipped_grid_proposes_its_points_in_order(name: str, points: list[dict[str, Any]]) -> None:
    choices = _proposals(load_space(name), trials=len(points))
    assert [choice.parameters for choice in choices] == points


def test_a_grid_beyond_the_budget_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"has 10 points, the budget 9 trials; set budget\.trials to 10"):
        searcher(_grid(), trials=9, seed=0)


def test_optuna_learns_from_the_students_that_ended() -> None:
    space = _space(
        {"kd": {"temperature": {"uniform": [1, 9]}}},
        search={"algorithm": "optuna", "points_to_evaluate": []},
    )
    temperatures = [float(c.parameters["temperature"]) for c in _proposals(space)]
    distances = [abs(temperature - 7) for temperature in temperatures]
    assert mean(distances[-20:]) < mean(distances[:10]) / 1.5


def test_an_interrupted_search_proposes_again_what_it_had_and_then_others() -> None:
    space = _with(load_space("digits"), algorithm="optuna")
    before = _suggestions(space, count=5)
    after = _suggestions(space, count=20, proposed=before)
    resolved = [str(space.resolve(sample).parameters) for sample in after]
    assert after[:5] == before
    assert len(set(resolved)) == len(resolved)


def test_an_interrupted_search_still_tries_the_points_that_it_had_not_reached() -> None:
    space = _with(load_space("digits"), algorithm="optuna")
    before = _suggestions(space, count=1)
    after = [space.resolve(sample).parameters for sample in _suggestions(space, count=3, proposed=before)]
    assert after == [space.resolve(point).parameters for point in space.default_points()]


def test_schedulers_are_those_of_the_file() -> None:
    asha = scheduler(load_space("digits"), max_epochs=20)
    assert isinstance(asha, ASHAScheduler)
    assert isinstance(scheduler(load_space("kd"), max_epochs=20), FIFOScheduler)
    with pytest.raises(ConfigError, match="grace_period of space digits is 4; allowed: at most 3"):
        scheduler(load_space("digits"), max_epochs=3)


def test_a_plan_counts_the_students_that_will_be_proposed() -> None:
    plan = search_plan(_grid(), trials=12, seed=0, max_epochs=5)
    assert (plan.num_samples, plan.trials) == (1, 10)
    plan = search_plan(load_space("kd"), trials=12, seed=0, max_epochs=5)
    assert (plan.num_samples, plan.trials) == (12, 12)


@pytest.mark.parametrize("algorithm", ["random", "grid"])
def test_random_draws_and_grids_let_no_more_trials_live_than_there_are_slots(algorithm: str) -> None:
    space = _grid() if algorithm == "grid" else _with(load_space("digits"), algorithm="random")
    plan = search_plan(space, trials=10, seed=0, max_epochs=20, concurrent=2)
    assert isinstance(plan.searcher, BasicVariantGenerator)
    register_trainable("scored", _Scored)
    plan.searcher.add_configurations(
        [Experiment("test", run="scored", config=plan.param_space, num_samples=plan.num_samples)]
    )
    alive = list(iter(plan.searcher.next_trial, None))
    assert len(alive) == 2
    assert alive[0] is not None
    plan.searcher.on_trial_complete(alive[0].trial_id)
    assert len(list(iter(plan.searcher.next_trial, None))) == 1
    plan.widen(5)
    assert len(list(iter(plan.searcher.next_trial, None))) == 3
    plan.widen(1)
    plan.searcher.on_trial_complete(alive[0].trial_id)
    assert len(list(iter(plan.searcher.next_trial, None))) == 0


def test_optuna_lets_more_trials_live_when_there_are_more_slots() -> None:
    plan = search_plan(load_space("digits"), trials=10, seed=0, max_epochs=20, concurrent=2)
    assert isinstance(plan.searcher, ConcurrencyLimiter)
    plan.searcher.set_search_properties(ACCURACY, "max", {})
    suggest = plan.searcher.suggest
    assert [suggest(name) is None for name in "abc"] == [False, False, True]
    plan.widen(3)
    assert [suggest(name) is None for name in "cd"] == [False, True]


def test_a_population_lives_as_a_whole() -> None:
    space = load_space("kd").with_overrides(scheduler={"name": "pbt"})
    plan = search_plan(space, trials=10, seed=0, max_epochs=20, concurrent=2)
    plan.widen(3)
    assert isinstance(plan.searcher, BasicVariantGenerator)
    assert plan.searcher.max_concurrent == 0


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["random", "optuna", "grid"])
def test_a_tuner_takes_the_plan_of_every_algorithm(algorithm: str, ray_local: None, tmp_path: Path) -> None:
    space = _with(load_space("digits"), algorithm=algorithm) if algorithm != "grid" else _small_grid()
    plan = search_plan(space, trials=4, seed=0, max_epochs=4)
    results = tune.Tuner(
        tune.with_resources(_Scored, {"CPU": 0.1}),
        param_space=plan.param_space,
        tune_config=tune.TuneConfig(
            metric=ACCURACY,
            mode="max",
            search_alg=plan.searcher,
            scheduler=plan.scheduler,
            num_samples=plan.num_samples,
            max_concurrent_trials=1,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0, stop={"epoch": 4}),
    ).fit()
    assert len(results) == plan.trials
    assert not results.errors
    objectives = {
        space.resolve(result.config or {}).objective["name"]
        for result in map(results.__getitem__, range(len(results)))
    }
    assert objectives == set(space.objective_names)


def _proposals(space: SpaceConfig, *, trials: int = N_DRAWS, seed: int = 0) -> list[ResolvedSample]:
    """What a search proposes; students do best at a temperature of 7."""
    algorithm = searcher(space, trials=trials, seed=seed)
    if isinstance(algorithm, BasicVariantGenerator):
        register_trainable("scored", _Scored)
        spec = Experiment(
            "test",
            run="scored",
            config=param_space(space, trials=trials, seed=seed),
            num_samples=n_samples(space, trials=trials),
        )
        algorithm.add_configurations([spec])
        drawn = iter(algorithm.next_trial, None)
        return [space.resolve(trial.config) for trial in drawn if trial is not None]
    assert param_space(space, trials=1, seed=0) == {}
    return [space.resolve(sample) for sample in _suggestions(space, count=trials, seed=seed)]


def _suggestions(
    space: SpaceConfig, *, count: int, seed: int = 0, proposed: Sequence[dict[str, Any]] = ()
) -> list[dict[str, Any]]:
    optuna = searcher(space, trials=max(count, N_DRAWS), seed=seed, proposed=proposed)
    assert isinstance(optuna, OptunaSearch)
    samples = []
    for number in range(count):
        trial = f"trial{number}"
        sample = optuna.suggest(trial)
        assert isinstance(sample, dict)
        temperature = float(space.resolve(sample).parameters.get("temperature", 1))
        optuna.on_trial_complete(trial, {ACCURACY: 1 - abs(temperature - 7) / 10})
        samples.append(sample)
    return samples


def _flat(choice: ResolvedSample) -> tuple[str, float, int]:
    values = choice.parameters
    searched = values.get("temperature", values.get("beta", 0))
    return str(values["objective"]), float(searched), int(values["student.width"])


def _space(objectives: dict[str, Any], **fields: Any) -> SpaceConfig:
    return SpaceConfig.from_plain({"name": "test", "objectives": objectives, **fields})


def _with(space: SpaceConfig, *, algorithm: str) -> SpaceConfig:
    return space.with_overrides(search=space.search.with_overrides(algorithm=algorithm))


def _small_grid() -> SpaceConfig:
    return _space(
        {"kd": {"temperature": {"grid_search": [2, 4]}}, "dkd": {"beta": {"grid_search": [8]}}},
        search={"algorithm": "grid"},
    )


def _grid() -> SpaceConfig:
    return _space(
        {"kd": {"temperature": {"grid_search": [1, 2, 4]}}, "dkd": {"beta": {"grid_search": [1, 8]}}},
        student={"width": {"grid_search": [4, 8]}},
        search={"algorithm": "grid"},
    )
