"""The stages that prepare a finished teacher: parts beside it, each trained once for all trials."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from orchestrator.pipeline.basis.unlabelled_stage import keyed_data
from orchestrator.pipeline.context import Run
from orchestrator.records.events import StageEpoch, TeacherPrepared
from trainables.config import (
    MAX_VIEWS,
    OBJECTIVE_CONFIGS,
    KeptNetwork,
    TrainingConfig,
    ViewsConfig,
    digest_of,
)
from trainables.config.objective_base import Preparation
from trainables.config.representation.preparation import RECIPES, PreparedPart
from trainables.errors import ConfigError
from trainables.seeds import derive_seed
from trainables.training.prepare_teacher import PreparationRequest
from trainables.training.train_teacher import TeacherFacts

_DIGITS: Final = 12
"""Of a key, in the name of a folder."""


def preparations(run: Run) -> tuple[Preparation, ...]:
    """What some objective of the space asks the teacher to be prepared with."""
    asked = {OBJECTIVE_CONFIGS[name].preparation for name in run.space.objective_names}
    return tuple(kind for kind in Preparation if kind in asked)


def _lacking(run: Run, teacher: TeacherFacts) -> list[Preparation]:
    """What it is not prepared with yet: one that was trained together with its branches has these."""
    there = {part.kind for part in teacher.prepared}
    return [kind for kind in preparations(run) if kind not in there]


def preparation_stages(run: Run, teacher: TeacherFacts) -> TeacherFacts:
    """The teacher with what it is prepared with, each by a stage of its own.

    Raises:
        ConfigError: it is no one network of PyTorch.
        StillhouseError: it has not the features that a part is given, or the training failed.
    """
    parts = list(teacher.prepared)
    for kind in _lacking(run, teacher):
        request, key = preparation_request(run, teacher, kind)
        found = run.stages.run(
            stage_of(kind),
            key,
            partial(_made, run, request, key),
            still_valid=lambda found: Path(found["weights"]).is_file(),
        )
        parts.append(PreparedPart.from_plain(found))
        run.console.info(f"{stage_of(kind)} {parts[-1].sha256[:8]}: beside the teacher, which stays as it is")
    for part in parts:
        _note(run, part, together=part in teacher.prepared)
    return teacher.with_overrides(prepared=parts) if parts else teacher


def recorded_preparations(run: Run, teacher: TeacherFacts) -> TeacherFacts:
    """The teacher with what the ledger knows it to be prepared with; the rest is still to be trained."""
    if teacher.weights is None:
        return teacher
    return teacher.with_overrides(prepared=[*teacher.prepared, *_recorded(run, teacher)])


def stage_of(kind: Preparation) -> str:
    """The name of the stage that trains it."""
    return f"preparation {kind}"


def preparation_request(run: Run, teacher: TeacherFacts, kind: Preparation) -> tuple[PreparationRequest, str]:
    """What a stage is asked for, and the key under which the ledger keeps its result.

    Raises:
        ConfigError: the teacher is no one network of PyTorch.
    """
    experiment = run.experiment
    network = run.kept(teacher)
    if not isinstance(network, KeptNetwork) or network.model is None:
        raise ConfigError(
            f"an objective of the space asks that the teacher is prepared ({kind}), which takes one network "
            "of PyTorch; take another teacher, or leave the objective out"
        )
    training = recipe_of(run, kind)
    # What is trained beside the teacher takes each image to show one sample, whatever students are shown.
    weak = experiment.views.weak.unmixed.with_overrides(views=min(training.epochs, MAX_VIEWS))
    request = PreparationRequest(
        kind=kind,
        network=network.with_overrides(prepared=()),
        fingerprint=teacher.fingerprint,
        data=experiment.data.labelled,
        training=training,
        views=ViewsConfig(weak=weak),
        seed=derive_seed(experiment.seed, "preparation", kind.value),
        folder="",
        threads=experiment.cluster.cpus_per_worker,
        code=run.edited(experiment.data.factory),
    )
    key = digest_of([request.key(), keyed_data(run, request.data)])
    # A place for each: what was prepared by another recipe stays what the ledger says of it.
    folder = run.out / "teacher" / "prepared" / f"{kind}-{key[:_DIGITS]}"
    return request.with_overrides(folder=str(folder)), key


def recipe_of(run: Run, kind: Preparation) -> TrainingConfig:
    """The experiment's, or the paper's with the sizes of the teacher's batches."""
    config = run.experiment.teacher
    if config.preparation is not None:
        return config.preparation
    return RECIPES[kind].with_overrides(
        batch_size=config.training.batch_size, eval_batch_size=config.training.eval_batch_size
    )


def _made(run: Run, request: PreparationRequest, key: str) -> dict[str, Any]:
    run.workers.start_slots_early()
    stage = stage_of(request.kind)
    told = (
        event.epoch for event in run.ledger.events_of(StageEpoch) if (event.stage, event.key) == (stage, key)
    )
    with run.console.progress(stage, request.training.epochs) as progress:

        def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
            run.ledger.append(StageEpoch(stage=stage, key=key, epoch=epoch, metrics=metrics))
            progress.update(epoch, f"loss {metrics['train/loss']:.4f}")

        return run.workers.prepare(request, on_epoch, heard=max(told, default=0)).plain()


def _note(run: Run, part: PreparedPart, *, together: bool) -> None:
    """Have the ledger tell what the teacher is prepared with, where it does not say so already."""
    recipe = run.experiment.teacher.training if together else recipe_of(run, part.kind)
    event = TeacherPrepared(part=part.kind.value, sha256=part.sha256, recipe=recipe.plain())
    known = [before for before in run.ledger.events_of(TeacherPrepared) if before.part == event.part]
    if not known or (known[-1].sha256, known[-1].recipe) != (event.sha256, event.recipe):
        run.ledger.append(event)


def _recorded(run: Run, teacher: TeacherFacts) -> Iterator[PreparedPart]:
    for kind in _lacking(run, teacher):
        done = run.ledger.finished(stage_of(kind), preparation_request(run, teacher, kind)[1])
        if done is not None and Path(done.found["weights"]).is_file():
            yield PreparedPart.from_plain(done.found)
