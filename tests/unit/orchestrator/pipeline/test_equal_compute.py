"""Which controls of equal compute are trained: for whom, with which recipe, and each once."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.config.loading import load_experiment
from orchestrator.config.overrides import Overrides
from orchestrator.config.schema import EqualCompute, ExperimentConfig
from orchestrator.pipeline.controls.equal_compute import controls_of_equal_compute_for, uncounted
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.relations import controls_of_equal_compute
from orchestrator.search.trial_specs import PlannedControl, control_spec, repeat_specs
from trainables.config import CeConfig, CrldConfig, ObjectiveBase, Role, TrainingConfig, TrialSpec
from trainables.config.objectives import DmlConfig

SEARCH = "s" * 64


@pytest.fixture(scope="module")
def experiment() -> ExperimentConfig:
    config = load_experiment("digits", overrides=Overrides(space="digits")).config
    return config.with_overrides(
        budget=config.budget.with_overrides(seeds=2),
        training={**config.training.plain(), "epochs": 20, "warmup_epochs": 1.0},
    )


def records(
    experiment: ExperimentConfig,
    objective: ObjectiveBase,
    name: str,
    *,
    ratio: float | None,
    accuracy: float = 0.9,
    **training: Any,
) -> list[TrialRecord]:
    """All seeds of a finalist, or of a control, as they ended."""
    student = experiment.student.network
    spec = TrialSpec(
        trial_id=name,
        role=Role.BASELINE if isinstance(objective, CeConfig) else Role.SEARCH,
        objective=objective,
        student=student,
        training=experiment.training.with_overrides(**training),
        seed=1,
        peers=(student,) * (objective.n_networks - 1),
    )
    final = {"selection/accuracy": accuracy} | ({} if ratio is None else {"train/compute_over_ce": ratio})
    return [
        TrialRecord(
            trial=again.trial_id,
            role=again.role,
            search=SEARCH,
            objective=again.objective.name,
            parameters={"name": name},
            spec=again.plain(),
            repeats=name,
            status="completed",
            best=final,
            final=final,
        )
        for again in repeat_specs(spec, experiment)
    ]


def planned(
    experiment: ExperimentConfig,
    finalists: list[TrialRecord],
    controls: list[TrialRecord],
    mode: EqualCompute = EqualCompute.AUTO,
) -> list[PlannedControl]:
    asked = experiment.with_overrides(budget=experiment.budget.with_overrides(equal_compute=mode))
    return controls_of_equal_compute_for(asked, search=SEARCH, finalists=finalists, controls=controls)


def test_the_best_control_is_stretched_over_as_many_epochs_as_compute_as_much(
    experiment: ExperimentConfig,
) -> None:
    own = records(experiment, DmlConfig(), "dml-1", ratio=2.0)
    weak = records(experiment, CeConfig(), "ce-1", ratio=1.0, accuracy=0.6)
    best = records(experiment, CeConfig(), "ce-2", ratio=1.0, accuracy=0.7, lr=0.02)
    (one,) = planned(experiment, own, [*weak, *best])
    recipe: TrainingConfig = experiment.training.with_overrides(lr=0.02, epochs=40, warmup_epochs=2.0)
    assert one.spec == control_spec(SEARCH, experiment.student.network, recipe)
    assert one.parameters == {"training.epochs": 40}
    longer = records(experiment, CeConfig(), one.spec.trial_id, ratio=1.0, **dict(recipe))
    (found,) = controls_of_equal_compute(own[0], [*weak, *best, *longer])
    assert found.records == tuple(sorted(longer, key=lambda record: record.spec["seed"]))


def test_finalists_of_one_student_and_length_share_it_where_they_compute_as_much(
    experiment: ExperimentConfig,
) -> None:
    control = records(experiment, CeConfig(), "ce-1", ratio=1.0)
    two = records(experiment, DmlConfig(), "dml-1", ratio=2.0)
    also_two = records(experiment, DmlConfig(kl_weight=0.5), "dml-2", ratio=2.0)
    four = records(experiment, DmlConfig(peers=4), "dml-4", ratio=4.0)
    found = planned(experiment, [*two, *also_two, *four], control)
    assert [one.spec.training.epochs for one in found] == [40, 80]


@pytest.mark.parametrize(
    ("mode", "trained"),
    [(EqualCompute.AUTO, [40]), (EqualCompute.ALWAYS, [40, 60]), (EqualCompute.NEVER, [])],
)
def test_the_file_says_for_whom(experiment: ExperimentConfig, mode: EqualCompute, trained: list[int]) -> None:
    """By default not for objectives with a teacher."""
    finalists = [
        *records(experiment, DmlConfig(), "dml-1", ratio=2.0),
        *records(experiment, CrldConfig(), "crld-1", ratio=3.0),
    ]
    found = planned(experiment, finalists, records(experiment, CeConfig(), "ce-1", ratio=1.0), mode)
    assert sorted(one.spec.training.epochs for one in found) == trained


@pytest.mark.parametrize("ratio", [None, 1.0, 1.2])
def test_earlier_ledgers_and_cheap_epochs_get_none(experiment: ExperimentConfig, ratio: float | None) -> None:
    own = records(experiment, DmlConfig(), "dml-1", ratio=ratio)
    control = records(experiment, CeConfig(), "ce-1", ratio=1.0)
    assert planned(experiment, own, control, EqualCompute.ALWAYS) == []


@pytest.mark.parametrize(
    ("mode", "told"),
    [(EqualCompute.AUTO, ["dml-1"]), (EqualCompute.ALWAYS, ["dml-1", "crld-1"]), (EqualCompute.NEVER, [])],
)
def test_finalists_that_may_ask_for_one_and_were_not_counted_are_told_once(
    experiment: ExperimentConfig, mode: EqualCompute, told: list[str]
) -> None:
    finalists = [
        *records(experiment, DmlConfig(), "dml-1", ratio=None),
        *records(experiment, CrldConfig(), "crld-1", ratio=None),
        *records(experiment, CeConfig(), "ce-1", ratio=None),
        *records(experiment, DmlConfig(peers=3), "dml-2", ratio=3.0),
    ]
    sentences = uncounted(mode, finalists)
    assert sorted(sentence.partition(" ")[0] for sentence in sentences) == sorted(told)
    assert all("no control of equal compute: what its training computes is not known" in s for s in sentences)


def test_what_the_budget_says_by_default_changes_no_fingerprint(experiment: ExperimentConfig) -> None:
    assert "equal_compute" not in experiment.budget.plain()
    assert experiment.budget.with_overrides(equal_compute="always").plain()["equal_compute"] == "always"
