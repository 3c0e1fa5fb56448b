"""Optuna weighs what a student costs against its accuracy: in Tune's own hands, and with real training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from optuna import Study
from optuna.study import StudyDirection
from optuna.trial import TrialState
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

from cluster.session import connect
from orchestrator.config.schema import ExperimentConfig
from orchestrator.pipeline.workers import Workers
from orchestrator.records.events import Agreed, EpochEnded
from orchestrator.records.ledger import Ledger
from orchestrator.search import driver as searching
from orchestrator.search.driver import SearchTask, run_search
from orchestrator.search.trial_specs import Composer
from orchestrator.terminal.console import Console
from search_spaces.space import SpaceConfig
from search_spaces.tune_plan import SearchPlan, search_plan
from trainables.config import Cost, TrialSpec, WorkbenchSpec
from trainables.config.metrics import ACCURACY
from trainables.models.weights import count_parameters
from trainables.slots.warm_state import WarmState

N_DRAWS = 40
TRIALS, EPOCHS = 12, 2
PARAMS, LATENCY = Cost.PARAMS.metric, Cost.LATENCY_MS.metric
# With the highest lr and the highest weight decay weights grow a thousandfold a step: the loss overflows in
# the second epoch, after the first was told. Few other draws fail: Tune takes seconds for each.
TOO_MUCH: dict[str, Any] = {"student.width": 6, "training.lr": 100.0, "training.weight_decay": 10.0}
SOUND: dict[str, Any] = {"student.width": 5, "training.lr": 0.1, "training.weight_decay": 1e-4}

Figures = Callable[[int], dict[str, float]]
"""By a student's width, what its last epoch tells."""


def width_space(*costs: Cost, **fields: Any) -> SpaceConfig:
    search: dict[str, Any] = {"algorithm": "optuna", "minimise": list(costs), "points_to_evaluate": []}
    plain = {
        "name": "widths",
        "objectives": {"ce": {}},
        "student": {"width": {"randint": [2, 41]}},
        "search": search | fields.pop("search", {}),
    }
    return SpaceConfig.from_plain(plain | fields)


def study_of(plan: SearchPlan) -> Study:
    proposer = plan.searcher
    optuna = proposer.searcher if isinstance(proposer, ConcurrencyLimiter) else proposer
    assert isinstance(optuna, OptunaSearch)
    study: Any = optuna._ot_study  # it is typed as none, which it is only at first
    assert isinstance(study, Study)
    return study


def widths_proposed(space: SpaceConfig, figures: Figures) -> list[int]:
    plan = search_plan(space, trials=N_DRAWS, seed=0, max_epochs=1)
    assert isinstance(plan.searcher, OptunaSearch)
    widths = []
    for number in range(N_DRAWS):
        sample = plan.searcher.suggest(f"trial{number}")
        assert isinstance(sample, dict)
        widths.append(int(sample["student"]["width"]))
        plan.searcher.on_trial_complete(f"trial{number}", figures(widths[-1]))
    return widths


def test_a_plan_with_costs_leaves_metric_and_mode_to_the_searcher() -> None:
    weighed = search_plan(width_space(Cost.LATENCY_MS, Cost.PARAMS), trials=4, seed=0, max_epochs=1)
    assert (weighed.metric, weighed.mode) == (None, None)
    assert study_of(weighed).directions == [
        StudyDirection.MAXIMIZE,
        StudyDirection.MINIMIZE,
        StudyDirection.MINIMIZE,
    ]
    alone = search_plan(width_space(), trials=4, seed=0, max_epochs=1)
    assert (alone.metric, alone.mode) == (ACCURACY, "max")
    assert study_of(alone).directions == [StudyDirection.MAXIMIZE]


def test_a_plan_goes_by_the_figure_that_the_space_names() -> None:
    ranked = {"search": {"rank_by": "probe_accuracy"}}
    alone = search_plan(width_space(**ranked), trials=4, seed=0, max_epochs=1)
    assert (alone.metric, alone.mode) == ("selection/probe_accuracy", "max")
    figures = {ACCURACY: 0.5, "selection/probe_accuracy": 0.75}
    assert values_told(alone, figures) == [0.75]
    weighed = search_plan(width_space(Cost.PARAMS, **ranked), trials=4, seed=0, max_epochs=1)
    assert values_told(weighed, {**figures, PARAMS: 3.0}) == [0.75, 3.0]


def values_told(plan: SearchPlan, figures: dict[str, float]) -> list[float]:
    """What Optuna keeps of a trial that ended with these figures."""
    assert isinstance(plan.searcher, OptunaSearch)
    if plan.metric is not None:  # as Tune does
        plan.searcher.set_search_properties(plan.metric, plan.mode, {})
    assert plan.searcher.suggest("one") is not None
    plan.searcher.on_trial_complete("one", figures)
    return list(study_of(plan).trials[0].values)


def test_proposals_follow_accuracy_and_cost_alike() -> None:
    space = width_space(Cost.PARAMS)
    by_cost = widths_proposed(space, lambda width: {ACCURACY: 0.5, PARAMS: 10.0 * width})
    by_accuracy = widths_proposed(space, lambda width: {ACCURACY: width / 100, PARAMS: 7.0})
    assert by_cost[:10] == by_accuracy[:10]
    assert mean(by_cost[-20:]) < 0.6 * mean(by_cost[:10])
    assert mean(by_accuracy[-20:]) > 1.2 * mean(by_accuracy[:10])


@pytest.mark.parametrize(
    ("result", "error", "state"),
    [
        (None, True, TrialState.FAIL),
        (None, False, TrialState.PRUNED),
        ({"epoch": 3}, False, TrialState.FAIL),
        ({ACCURACY: 0.5}, False, TrialState.FAIL),
        ({ACCURACY: float("nan"), PARAMS: 3.0}, False, TrialState.FAIL),
        ({ACCURACY: 0.5, PARAMS: 3.0}, False, TrialState.COMPLETE),
    ],
)
def test_a_trial_without_all_figures_is_closed_and_the_search_goes_on(
    result: dict[str, float] | None, error: bool, state: TrialState
) -> None:
    plan = search_plan(width_space(Cost.PARAMS), trials=N_DRAWS, seed=0, max_epochs=1)
    assert isinstance(plan.searcher, OptunaSearch)
    for number in range(2 * N_DRAWS // 3):  # beyond the first ten, which Optuna draws blindly
        name, odd = f"trial{number}", number % 3 == 1
        assert plan.searcher.suggest(name) is not None
        told = result if odd else {ACCURACY: number / 100, PARAMS: 10.0}
        plan.searcher.on_trial_complete(name, told, error=odd and error)
    states = [trial.state for trial in study_of(plan).trials]
    assert states == [state if number % 3 == 1 else TrialState.COMPLETE for number in range(len(states))]


def experiment() -> ExperimentConfig:
    return ExperimentConfig.from_plain(
        {
            "name": "costs",
            "data": {"name": "digits", "train_limit": 200, "selection_fraction": 0.2},
            "teacher": {"model": {"name": "mlp"}},
            "student": {"name": "mlp", "width": 8},
            "views": {},
            "training": {"epochs": EPOCHS, "batch_size": 32, "precision": "fp32"},
            "space": "written below",
            "budget": {"trials": TRIALS, "max_failed_trials": TRIALS},
            "cluster": {"slots": 2, "gpus_per_worker": 0, "students_per_slot": 1},
        }
    )


@dataclass
class SearchSetting:
    workers: Workers
    folder: Path

    def search(self, space: SpaceConfig, ledger: Ledger) -> Study:
        """What Optuna knows in the end."""
        composer = Composer(experiment(), space, self.workbench(), space.digest())
        slots = self.workers.plan.slots
        task = SearchTask(composer, self.workers.broker, slots, self.folder / "tune")
        plans: list[SearchPlan] = []

        def kept(*arguments: Any, **named: Any) -> SearchPlan:
            plans.append(search_plan(*arguments, **named))
            return plans[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(searching, "search_plan", kept)
            run_search(task, ledger, Console())
        return study_of(plans[-1])

    def workbench(self) -> WorkbenchSpec:
        config = experiment()
        return WorkbenchSpec(
            data=config.data,
            views=config.views,
            view_seed=0,
            cache_uri=None,
            cache_manifest=None,
            checkpoints=str(self.folder / "students"),
        )


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchSetting]:
    folder = tmp_path_factory.mktemp("costs")
    with connect("local", cpus=2), Workers(experiment(), folder, Console()) as workers:
        workers.start_slots()
        yield SearchSetting(workers, folder)


def flat(sampled: Mapping[str, Any]) -> dict[str, Any]:
    """What a searcher proposed, by Optuna's names."""
    return {
        f"{section}/{name}": value
        for section, values in sampled.items()
        if isinstance(values, dict)
        for name, value in values.items()
    }


def epochs_of(ledger: Ledger) -> list[dict[str, Any]]:
    return [event.plain() for event in ledger.events_of(EpochEnded)]


@pytest.mark.ray
@pytest.mark.slow
def test_the_best_of_a_study_are_the_ledgers_pareto_front_also_after_an_interruption(
    setting: SearchSetting, tmp_path: Path
) -> None:
    space = width_space(
        Cost.PARAMS,
        training={
            "lr": {"choice": [0.02, 0.05, 0.1, 0.3, 100.0]},
            "weight_decay": {"choice": [1e-5, 1e-4, 1e-3, 1e-2, 10.0]},
        },
        search={"points_to_evaluate": [SOUND, TOO_MUCH]},
    )
    ledger = Ledger(tmp_path / "first")
    study = setting.search(space, ledger)
    first = [{name.replace("/", "."): value for name, value in t.params.items()} for t in study.trials[:2]]
    assert first == [SOUND, TOO_MUCH]
    assert_params_are_those_of_the_student(setting, ledger)
    assert_is_the_front_of(study, ledger)

    # A trial that told an epoch and then failed is none of the study's best, and the search went on.
    (failed,) = (record for record in ledger.trials() if record.parameters == TOO_MUCH)
    assert (failed.status, failed.epochs) == ("failed", 1)
    assert study.trials[1].state is TrialState.FAIL
    assert len(study.trials) == TRIALS
    assert all(trial.state.is_finished() for trial in study.trials)

    # The driver is gone in the middle of a trial: the next one proposes what was proposed, then others.
    again = cut_in_the_fifth_trial(ledger, tmp_path / "again")
    known = [flat(record.sampled) for record in again.trials()]
    assert 5 <= len(known) < len(ledger.trials())
    resumed = setting.search(space, again)
    assert [trial.params for trial in resumed.trials[: len(known)]] == known
    assert len(resumed.trials) == TRIALS
    assert_is_the_front_of(resumed, again)
    before, after = finals_of(ledger), finals_of(again)
    assert all(after[trial] == before[trial] for trial in before.keys() & after.keys())


def cut_in_the_fifth_trial(ledger: Ledger, folder: Path) -> Ledger:
    """What the ledger held when that trial had told its first epoch."""
    trial = ledger.trials()[4].trial
    at = next(event.seq for event in ledger.events_of(EpochEnded) if event.trial == trial)
    folder.mkdir()
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    (folder / "ledger.jsonl").write_bytes(b"".join(lines[: at + 1]))
    return Ledger(folder)


def finals_of(ledger: Ledger) -> dict[str, tuple[float, float]]:
    return {r.trial: (r.final[ACCURACY], r.final[PARAMS]) for r in ledger.trials() if r.status == "completed"}


def assert_params_are_those_of_the_student(setting: SearchSetting, ledger: Ledger) -> None:
    warm = WarmState(torch.device("cpu"))
    students = {record.trial: TrialSpec.from_plain(record.spec).student for record in ledger.trials()}
    told = epochs_of(ledger)
    assert len(told) > TRIALS
    for event in told:
        student = warm.build(students[event["trial"]], setting.workbench())
        assert event["metrics"][PARAMS] == count_parameters(student)
        assert LATENCY not in event["metrics"]


def assert_is_the_front_of(study: Study, ledger: Ledger) -> None:
    assert study.directions == [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
    points = set(finals_of(ledger).values())
    front = {
        (accuracy, params)
        for accuracy, params in points
        if not any(a >= accuracy and p <= params and (a, p) != (accuracy, params) for a, p in points)
    }
    assert len(points) > 1
    assert {tuple(trial.values) for trial in study.best_trials} == front


@pytest.mark.ray
@pytest.mark.slow
def test_latency_is_measured_once_for_each_architecture_of_a_search(
    setting: SearchSetting, tmp_path: Path
) -> None:
    space = width_space(
        Cost.LATENCY_MS,
        Cost.PARAMS,
        student={"width": {"choice": [4, 64]}},
        training={"lr": {"loguniform": [0.01, 0.5]}},
    )
    ledger = Ledger(tmp_path)
    study = setting.search(space, ledger)
    by_width: dict[int, set[float]] = {}
    widths = {record.trial: record.parameters["student.width"] for record in ledger.trials()}
    for event in epochs_of(ledger):
        by_width.setdefault(widths[event["trial"]], set()).add(event["metrics"][LATENCY])
    assert sorted(by_width) == [4, 64]
    assert all(len(latencies) == 1 for latencies in by_width.values())
    agreed = {float(event.value) for event in ledger.events_of(Agreed)}
    assert agreed == set.union(*by_width.values())
    assert min(agreed) > 0
    assert {trial.values[1] for trial in study.trials} == agreed
