from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.config.loading import load_experiment
from orchestrator.config.overrides import Overrides
from orchestrator.config.schema import ExperimentConfig
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.trial_names import control_name
from orchestrator.search.trial_specs import Composer, PlannedControl, control_spec, controls_for, repeat_jobs
from trainables.config import CeConfig, Cost, Role, TrialSpec, WorkbenchSpec
from trainables.config.metrics import RankBy

DKD = {"objective": "dkd", "dkd": {"temperature": 2.0, "alpha": 1.0, "beta": 4.0}}


@pytest.fixture(scope="module")
def composer() -> Composer:
    loaded = load_experiment("digits", overrides=Overrides(space="digits"))
    workbench = WorkbenchSpec(
        data=loaded.config.data,
        views=loaded.config.views,
        view_seed=1,
        cache_uri=None,
        cache_manifest=None,
        checkpoints="students",
    )
    return Composer(loaded.config, loaded.space, workbench, "s" * 64)


def dkd(**changes: Any) -> dict[str, Any]:
    return {"objective": "dkd", "dkd": {**DKD["dkd"], **changes}}  # type: ignore[dict-item]


def test_a_proposal_becomes_a_job_of_this_experiment(composer: Composer) -> None:
    job = composer(DKD).job
    assert job.workbench == composer.workbench
    assert job.job_id == job.trial.trial_id
    assert job.trial.role is Role.SEARCH
    assert job.trial.objective.plain() == {
        "name": "dkd",
        "temperature": 2.0,
        "ce_weight": 1.0,
        "alpha": 1.0,
        "beta": 4.0,
        "warmup_epochs": composer.space.objectives.given()["dkd"].constants()["warmup_epochs"],
        "standardise": False,
    }
    assert job.trial.student == composer.experiment.student.network
    assert job.trial.training == composer.experiment.training
    assert job.job_id.startswith("dkd-")


def test_the_same_proposal_gives_the_same_job(composer: Composer) -> None:
    again = composer({"dkd": {"beta": 4.0, "alpha": 1.0, "temperature": 2.0}, **DKD})
    assert composer(DKD).job == again.job


def test_other_values_give_another_id_and_seed(composer: Composer) -> None:
    one, other = composer(DKD).job, composer(dkd(beta=4.5)).job
    assert one.job_id != other.job_id
    assert one.trial.seed != other.trial.seed


def test_another_search_gives_another_id_to_the_same_student(composer: Composer) -> None:
    here, there = composer(DKD).job, replace(composer, search="t" * 64)(DKD).job
    assert here.job_id != there.job_id
    assert here.trial.seed == there.trial.seed


def test_another_experiment_seed_gives_other_seeds(composer: Composer) -> None:
    other = replace(composer, experiment=composer.experiment.with_overrides(seed=1))
    assert composer(DKD).job.trial.seed != other(DKD).job.trial.seed


def test_a_job_asks_for_the_costs_that_its_search_minimises(composer: Composer) -> None:
    space = composer.space.with_overrides(
        search={"algorithm": "optuna", "minimise": ["latency_ms"]}, scheduler={"name": "fifo"}
    )
    job = replace(composer, space=space)(DKD).job
    assert job.costs == (Cost.LATENCY_MS,)
    assert composer(DKD).job.costs == ()
    assert job.trial == composer(DKD).job.trial  # what is told of a student is no part of it
    again = repeat_jobs(job.trial, experiment=composer.experiment, workbench=job.workbench)
    assert [repeat.costs for repeat in again] == [()] * len(again)


def test_the_figure_that_ranks_goes_with_students_repetitions_and_controls(
    composer: Composer, make_record: Callable[..., TrialRecord]
) -> None:
    space = composer.space.with_overrides(search={"rank_by": "probe_accuracy"})
    trial = replace(composer, space=space)(DKD).job.trial
    usual = composer(DKD).job.trial
    assert (trial.rank_by, usual.rank_by) == (RankBy.PROBE_ACCURACY, RankBy.ACCURACY)
    assert {**usual.plain(), "rank_by": "probe_accuracy"} == trial.plain()
    again = repeat_jobs(trial, experiment=composer.experiment, workbench=composer.workbench)
    assert {job.trial.rank_by for job in again} == {RankBy.PROBE_ACCURACY}
    finalist = make_record(trial.trial_id, 0.9).model_copy(update={"spec": trial.plain()})
    planned = controls_for(composer.experiment, search="s", finalists=[finalist], searched=[])
    assert [control.spec.rank_by for control in planned] == [RankBy.PROBE_ACCURACY]


def test_ids_of_many_proposals_differ(composer: Composer) -> None:
    ids = {composer(dkd(beta=0.5 + number / 1000)).job.job_id for number in range(500)}
    assert len(ids) == 500
    assert all(len(name) == len("dkd-") + 12 for name in ids)


@pytest.fixture
def three_seeds(composer: Composer) -> ExperimentConfig:
    budget = composer.experiment.budget.with_overrides(seeds=3)
    return composer.experiment.with_overrides(budget=budget)


def test_finalists_and_control_are_repeated_with_the_same_seeds(
    composer: Composer, three_seeds: ExperimentConfig
) -> None:
    finalist = composer(DKD).job.trial
    control = control_spec(composer.search, three_seeds.student, three_seeds.training)
    groups = [
        repeat_jobs(spec, experiment=three_seeds, workbench=composer.workbench)
        for spec in (finalist, control)
    ]
    seeds = [[job.trial.seed for job in group] for group in groups]
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0])) == 3
    assert finalist.seed not in seeds[0]
    assert [job.trial.role for job in groups[0]] == [Role.FINALIST] * 3
    assert [job.trial.role for job in groups[1]] == [Role.BASELINE] * 3
    assert [job.job_id for job in groups[0]] == [f"{finalist.trial_id}-seed{number}" for number in range(3)]


def test_a_repetition_differs_from_its_original_in_name_role_and_seed_alone(
    composer: Composer, three_seeds: ExperimentConfig
) -> None:
    original = composer(DKD).job.trial
    for job in repeat_jobs(original, experiment=three_seeds, workbench=composer.workbench):
        same = {"trial_id": original.trial_id, "role": original.role, "seed": original.seed}
        assert job.trial.with_overrides(**same) == original
        assert job.workbench == composer.workbench


def test_more_seeds_keep_the_first_ones(composer: Composer, three_seeds: ExperimentConfig) -> None:
    spec = composer(DKD).job.trial
    more = three_seeds.with_overrides(budget=three_seeds.budget.with_overrides(seeds=5))

    def jobs(experiment: ExperimentConfig) -> list[TrialSpec]:
        repeats = repeat_jobs(spec, experiment=experiment, workbench=composer.workbench)
        return [job.trial for job in repeats]

    assert jobs(more)[:3] == jobs(three_seeds)


def test_a_control_learns_from_labels_alone(composer: Composer) -> None:
    experiment = composer.experiment
    control = control_spec(composer.search, experiment.student, experiment.training)
    assert control.objective == CeConfig()
    assert (control.student, control.training) == (experiment.student, experiment.training)
    assert control.trial_id == control_name(composer.search, control.plain())
    other = control_spec("t" * 64, experiment.student, experiment.training)
    assert control.trial_id != other.trial_id


def record_of(composer: Composer, sampled: dict[str, Any], accuracy: float = 0.9) -> TrialRecord:
    """A completed trial of the search."""
    proposal = composer(sampled)
    spec = proposal.job.trial
    return TrialRecord(
        trial=spec.trial_id,
        role=Role.SEARCH,
        search=composer.search,
        objective=spec.objective.name,
        parameters=dict(proposal.parameters),
        spec=spec.plain(),
        status="completed",
        best={"selection/accuracy": accuracy},
    )


def planned(
    composer: Composer, finalists: list[TrialRecord], searched: list[TrialRecord] | None = None
) -> list[PlannedControl]:
    return controls_for(
        composer.experiment, search=composer.search, finalists=finalists, searched=searched or finalists
    )


def test_where_only_objectives_vary_all_finalists_have_one_control(composer: Composer) -> None:
    experiment = composer.experiment
    (one,) = planned(composer, [record_of(composer, DKD), record_of(composer, dkd(beta=3.0))])
    # It is the one that earlier versions trained, so that their finished stages stay valid.
    assert one.spec == control_spec(composer.search, experiment.student.network, experiment.training)
    assert one.parameters == {}


def test_a_control_has_what_the_space_fixes_of_the_student_and_no_state_for_pauses(
    composer: Composer,
) -> None:
    space = composer.space.with_overrides(
        student={"cosine_head": 12}, search={"algorithm": "random"}, scheduler={"name": "hyperband"}
    )
    fixed = replace(composer, space=space)
    (one,) = planned(fixed, [record_of(fixed, DKD)])
    assert one.spec.student == composer.experiment.student.network.with_overrides(cosine_head=12)
    assert one.spec.training == composer.experiment.training


def varied(composer: Composer, **sections: Any) -> Composer:
    fields: dict[str, Any] = {
        "objectives": {"ce": {}, "dkd": {}},
        "student": {"width": {"choice": [16, 64]}},
        "training": {"lr": {"choice": [0.1, 0.2, 0.4]}, "epochs": {"choice": [80, 40]}},
    }
    return replace(composer, space=composer.space.with_overrides(**(fields | sections)))


def sample(objective: str, width: int, lr: float, epochs: int = 80) -> dict[str, Any]:
    return {"objective": objective, "student": {"width": width}, "training": {"lr": lr, "epochs": epochs}}


def told(controls: list[PlannedControl]) -> list[tuple[Any, ...]]:
    specs = [control.spec for control in controls]
    return [(spec.student.width, spec.training.lr, spec.training.epochs) for spec in specs]


def test_a_control_has_its_finalists_width_and_epochs_with_the_recipes_of_both(composer: Composer) -> None:
    search = varied(composer)
    file_lr = composer.experiment.training.lr
    finalists = [record_of(search, sample("dkd", 64, 0.1, 40)), record_of(search, sample("dkd", 16, 0.2))]
    controls = planned(search, finalists)
    assert told(controls) == [(64, file_lr, 40), (64, 0.1, 40), (16, file_lr, 80), (16, 0.2, 80)]
    assert controls[0].parameters == {"student.width": 64, "training.lr": file_lr, "training.epochs": 40}
    assert {control.spec.objective for control in controls} == {CeConfig()}


def test_a_search_of_cross_entropy_too_gives_its_best_recipe_to_the_control(composer: Composer) -> None:
    search = varied(composer)
    file_lr = composer.experiment.training.lr
    finalist = record_of(search, sample("dkd", 64, 0.1))
    others = [
        record_of(search, sample("ce", 64, 0.2), 0.7),
        record_of(search, sample("ce", 64, 0.1), 0.6),
        record_of(search, sample("ce", 16, 0.4), 0.9),
    ]
    controls = planned(search, [finalist], [finalist, *others])
    assert told(controls) == [(64, file_lr, 80), (64, 0.1, 80), (64, 0.2, 80)]
    # A finalist without a teacher is what its control would be: nothing is trained twice.
    controls = planned(search, [finalist, others[0]], [finalist, *others])
    assert told(controls) == [(64, file_lr, 80), (64, 0.1, 80)]
