"""From what a searcher samples to a job: the one place where space, experiment and seed meet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.config.peers import with_peers
from orchestrator.config.schema import ExperimentConfig
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.relations import LABELS_ALONE, setting_of
from orchestrator.records.selection import rank_trials
from orchestrator.records.trial_names import ID_DIGITS, control_name
from search_spaces.space import SpaceConfig
from trainables.checkpoint_header import known_by
from trainables.config import (
    CeConfig,
    Fork,
    LsConfig,
    ModelConfig,
    Role,
    TrainingConfig,
    TrialSpec,
    WorkbenchSpec,
    digest_of,
)
from trainables.config.base import Scalar
from trainables.config.metrics import RankBy
from trainables.seeds import derive_seed
from trainables.slots.messages import TrainJob

LABELS: Final = CeConfig()
"""The objective of controls."""
SMOOTHED_LABELS: Final = LsConfig(smoothing=0.1)
"""That of those with label smoothing, which the budget may ask for beside them."""


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
        student = self.experiment.student.network.with_overrides(**resolved.student)
        training = self.experiment.training.with_overrides(**resolved.training)
        scheduler = self.space.scheduler
        if scheduler.pauses:  # what is paused, or forked from, goes on from a state of that very epoch
            training = training.with_overrides(checkpoint_every=1)
        objective, peers = with_peers(resolved.objective, student, self.experiment.peers)
        content: list[Any] = [objective, known_by(student), training.plain()]
        content += [[known_by(peer) for peer in peers]] if peers else []
        content += [fork.plain()] if fork else []
        digest = digest_of([self.search, content])
        spec = TrialSpec.from_plain(
            {
                "trial_id": f"{objective['name']}-{digest[:ID_DIGITS]}",
                "role": Role.SEARCH,
                "objective": objective,
                "student": student.plain(),
                "training": training.plain(),
                "seed": derive_seed(self.experiment.seed, "search", digest_of(content)),
                "peers": [peer.plain() for peer in peers],
                "fork": fork and fork.plain(),
                "keep_states": scheduler.name == "pbt",
                "rank_by": self.space.search.rank_by,
            }
        )
        job = TrainJob(workbench=self.workbench, trial=spec, costs=self.space.search.minimise)
        return Proposal(job, resolved.parameters, sampled)


def repeat_specs(spec: TrialSpec, experiment: ExperimentConfig) -> list[TrialSpec]:
    """The same student again, once per seed of the budget; all groups share their seeds, so pairs compare."""
    return [
        spec.with_overrides(
            trial_id=f"{spec.trial_id}-seed{number}",
            role=Role.BASELINE if spec.role is Role.BASELINE else Role.FINALIST,
            fork=None,
            keep_states=False,
            seed=derive_seed(experiment.seed, "repeat", number),
        )
        for number in range(experiment.budget.seeds)
    ]


def repeat_jobs(spec: TrialSpec, *, experiment: ExperimentConfig, workbench: WorkbenchSpec) -> list[TrainJob]:
    """The jobs that train `repeat_specs`."""
    return [TrainJob(workbench=workbench, trial=again) for again in repeat_specs(spec, experiment)]


def control_spec(
    search: str,
    student: ModelConfig,
    training: TrainingConfig,
    rank_by: RankBy = RankBy.ACCURACY,
    objective: CeConfig | LsConfig = LABELS,
) -> TrialSpec:
    """A student that learns from labels alone, and is judged by the figure that ranks the others."""
    content = {"objective": objective.plain(), "student": known_by(student), "training": training.plain()}
    return TrialSpec(
        trial_id=control_name(search, content),
        role=Role.BASELINE,
        objective=objective,
        student=student,
        training=training,
        seed=0,
        rank_by=rank_by,
    )


@dataclass(frozen=True)
class PlannedControl:
    """A control to train, and what it has of the values that the search varied for student and recipe."""

    spec: TrialSpec
    parameters: Mapping[str, Scalar]


def controls_for(
    experiment: ExperimentConfig,
    *,
    search: str,
    finalists: Sequence[TrialRecord],
    searched: Sequence[TrialRecord],
) -> list[PlannedControl]:
    """The controls of these finalists, each once; finalists that learn from labels alone need no twin.

    A finalist's control has its student and its number of epochs. A rate that suits the finalist's objective
    need not suit cross-entropy, so it is trained with several recipes: that of the experiment file, that of
    the finalist, and that of the best trial without a teacher, where the search had such trials. Where the
    budget asks for it, the same students are trained with label smoothing too, by each of these recipes.
    """
    found: dict[str, PlannedControl] = {}
    for finalist in finalists:
        own = TrialSpec.from_plain(finalist.spec)
        for training in _recipes(experiment, finalist, searched):
            spec = control_spec(search, own.student, training, own.rank_by)
            found.setdefault(spec.trial_id, PlannedControl(spec, varied_values(finalist.parameters, spec)))
    for finalist in finalists:
        spec = TrialSpec.from_plain(finalist.spec)
        if spec.objective == CeConfig():
            twin = control_spec(search, spec.student, own_recipe(experiment, spec.training))
            found.pop(twin.trial_id, None)
    return [*found.values(), *_smoothed(experiment, search, finalists, searched)]


def _smoothed(
    experiment: ExperimentConfig,
    search: str,
    finalists: Sequence[TrialRecord],
    searched: Sequence[TrialRecord],
) -> list[PlannedControl]:
    """Controls with label smoothing, each once; none where the budget does not ask for them."""
    found: dict[str, PlannedControl] = {}
    for finalist in finalists if experiment.budget.smoothed_control else ():
        own = TrialSpec.from_plain(finalist.spec)
        for training in _recipes(experiment, finalist, searched):
            spec = control_spec(search, own.student, training, own.rank_by, SMOOTHED_LABELS)
            found.setdefault(spec.trial_id, PlannedControl(spec, varied_values(finalist.parameters, spec)))
    return list(found.values())


def file_recipe(experiment: ExperimentConfig, *, epochs: int) -> TrainingConfig:
    """The experiment file's recipe for so many epochs."""
    return experiment.training.with_overrides(epochs=epochs)


def own_recipe(experiment: ExperimentConfig, training: TrainingConfig) -> TrainingConfig:
    """A recipe without what a scheduler that pauses adds to it."""
    return training.with_overrides(checkpoint_every=experiment.training.checkpoint_every)


def varied_values(searched: Mapping[str, Any], control: TrialSpec) -> dict[str, Scalar]:
    """What a control has of the values of student and recipe that were searched, by their flat names."""
    sections = {"student": control.student, "training": control.training}
    names = [name.partition(".") for name in searched]
    return {
        f"{section}.{name}": getattr(sections[section], name)
        for section, _, name in names
        if section in sections
    }


def _recipes(
    experiment: ExperimentConfig, finalist: TrialRecord, searched: Sequence[TrialRecord]
) -> Iterator[TrainingConfig]:
    own = TrialSpec.from_plain(finalist.spec).training
    yield file_recipe(experiment, epochs=own.epochs)
    yield own_recipe(experiment, own)
    alike = [r for r in searched if r.objective == LABELS_ALONE and setting_of(r) == setting_of(finalist)]
    for best in rank_trials(alike)[:1]:
        yield own_recipe(experiment, TrialSpec.from_plain(best.spec).training)
