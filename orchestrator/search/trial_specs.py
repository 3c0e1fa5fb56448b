"""From what a searcher samples to a job: the one place where space, experiment and seed meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.config.schema import ExperimentConfig
from orchestrator.records.trial_names import ID_DIGITS, control_name
from search_spaces.space import SpaceConfig
from trainables.config import (
    CeConfig,
    Fork,
    ModelConfig,
    Role,
    TrialSpec,
    WorkbenchSpec,
    digest_of,
)
from trainables.config.base import Scalar
from trainables.seeds import derive_seed
from trainables.slots.messages import TrainJob


@dataclass(frozen=True)
class Proposal:
    """What a searcher or scheduler proposed, and the job that it is."""

    job: TrainJob
    parameters: Mapping[str, Scalar]
    """The searched values alone, flat: temperature, student.width ..."""
    sampled: Mapping[str, Any]
    """The searcher's own form of them, so that it can propose them again."""


@dataclass(frozen=True)
class Composer:
    """Makes jobs for one search; the same values give the same job, with the same id and seed."""

    experiment: ExperimentConfig
    space: SpaceConfig
    workbench: WorkbenchSpec
    search: str

    def __call__(self, sampled: Mapping[str, Any], fork: Fork | None = None) -> Proposal:
        """The proposal of sampled values; the job of a fork begins with another trial's state.

        Raises:
            ConfigError: the sample lacks a value of the space.
        """
        resolved = self.space.resolve(sampled)
        student = self.experiment.student.with_overrides(**resolved.student)
        training = self.experiment.training.with_overrides(**resolved.training)
        scheduler = self.space.scheduler
        if scheduler.pauses:  # what is paused, or forked from, goes on from a state of that very epoch
            training = training.with_overrides(checkpoint_every=1)
        content = [resolved.objective, student.plain(), training.plain(), *([fork.plain()] if fork else [])]
        digest = digest_of([self.search, content])
        spec = TrialSpec.from_plain(
            {
                "trial_id": f"{resolved.objective['name']}-{digest[:ID_DIGITS]}",
                "role": Role.SEARCH,
                "objective": resolved.objective,
                "student": student.plain(),
                "training": training.plain(),
                "seed": derive_seed(self.experiment.seed, "search", digest_of(content)),
                "fork": fork and fork.plain(),
                "keep_states": scheduler.name == "pbt",
            }
        )
        job = TrainJob(workbench=self.workbench, trial=spec, costs=self.space.search.minimise)
        return Proposal(job, resolved.parameters, sampled)


def repeat_jobs(
    spec: TrialSpec, *, experiment: ExperimentConfig, workbench: WorkbenchSpec, role: Role
) -> list[TrainJob]:
    """The same student again, once per seed of the budget; all groups share their seeds, so pairs compare."""
    return [
        TrainJob(
            workbench=workbench,
            trial=spec.with_overrides(
                trial_id=f"{spec.trial_id}-seed{number}",
                role=role,
                fork=None,
                keep_states=False,
                seed=derive_seed(experiment.seed, "repeat", number),
            ),
        )
        for number in range(experiment.budget.seeds)
    ]


def control_spec(experiment: ExperimentConfig, *, student: ModelConfig, search: str) -> TrialSpec:
    """The student that learns from labels alone, with the experiment's own recipe and budget."""
    objective = CeConfig()
    training = experiment.training
    content = {"objective": objective.plain(), "student": student.plain(), "training": training.plain()}
    return TrialSpec(
        trial_id=control_name(search, content),
        role=Role.BASELINE,
        objective=objective,
        student=student,
        training=training,
        seed=0,
    )
