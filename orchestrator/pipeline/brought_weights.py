"""Weights that are no file of the network's own yet: a library's, and models and runs of MLflow."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from orchestrator.config.asked_features import taught_objectives
from orchestrator.config.loading import LoadedExperiment
from orchestrator.config.paths import tracking_uri
from orchestrator.config.teacher_schema import MemberConfig, TeacherConfig
from orchestrator.config.tracking_uri import absolute_tracking_uri
from trainables.config import ModelConfig, ModelName, StudentConfig, digest_of
from trainables.config.checkpoints import is_elsewhere, is_pinned, is_published, is_tracked, published_tag
from trainables.errors import ConfigError
from trainables.models.foreign.published import published_weights
from trainables.models.foreign.transformers_weights import is_of_transformers, transformers_weights

Part = TypeVar("Part", TeacherConfig, MemberConfig, StudentConfig)
WEIGHTS_FOLDER: Final = "weights"
"""Below the output folder."""
_DIGITS: Final = 12
_SQLITE: Final = "sqlite:///"


def pinned(loaded: LoadedExperiment) -> LoadedExperiment:
    """The experiment with versions in the place of aliases: what a run is known by may not move under it.

    Nobody asks for the version of a teacher that no objective of the space hears.

    Raises:
        StillhouseError: MLflow does not answer, or has no such model.
    """
    with_student = _changed(loaded, {"student": _pinned(loaded, loaded.config.student)})
    return with_pinned_teacher(with_student) if taught_objectives(loaded.space) else with_student


def with_pinned_teacher(loaded: LoadedExperiment) -> LoadedExperiment:
    """The same for its teacher, or for each of several.

    Raises:
        StillhouseError: as for `pinned`.
    """
    config = loaded.config
    if config.teachers:
        return _changed(loaded, {"teachers": [_pinned(loaded, teacher) for teacher in config.teachers]})
    return _changed(loaded, {"teacher": _pinned(loaded, config.teacher)} if config.has_teacher else {})


def _changed(loaded: LoadedExperiment, changes: dict[str, Any]) -> LoadedExperiment:
    config = loaded.config.with_overrides(**changes)
    return loaded if config == loaded.config else replace(loaded, config=config)


def _pinned(loaded: LoadedExperiment, part: Part) -> Part:
    """A teacher or student whose weights have a name in MLflow that stays theirs."""
    checkpoint = part.checkpoint
    if checkpoint is None or not is_tracked(checkpoint) or is_pinned(checkpoint):
        return part
    # Late, here and below: MLflow takes as long to import as torch, and few runs need it so early.
    from orchestrator.tracking.stored_weights import pinned_uri

    return part.with_overrides(checkpoint=pinned_uri(checkpoint, store=_store(loaded, checkpoint)))


def needs_bringing(checkpoint: str, model: ModelConfig) -> bool:
    """Whether it is not a file of weights under the network's own names already."""
    is_foreign = model.name is ModelName.TRANSFORMERS and is_of_transformers(Path(checkpoint))
    return is_elsewhere(checkpoint) or is_foreign


def brought_weights(loaded: LoadedExperiment, checkpoint: str, model: ModelConfig, folder: Path) -> Path:
    """A file with these weights, below `folder`; one that was brought before is not brought again.

    Raises:
        ConfigError: there are none, or they cannot be had.
        StillhouseError: MLflow does not answer, or what it has is no file of tensors.
    """
    if is_published(checkpoint):
        return published_weights(model, published_tag(checkpoint), folder)
    file = Path(checkpoint)
    if is_tracked(checkpoint):
        from orchestrator.tracking.stored_weights import fetched_weights

        store = _store(loaded, checkpoint)
        place = folder / f"mlflow-{digest_of([checkpoint, store])[:_DIGITS]}"
        file = fetched_weights(checkpoint, store=store, folder=place)
    if model.name is ModelName.TRANSFORMERS and is_of_transformers(file):
        return transformers_weights(file.parent, folder)
    return file


def _store(loaded: LoadedExperiment, checkpoint: str) -> str:
    """The MLflow store that has it: that of the experiment's record, the environment's, or the run's own.

    Raises:
        ConfigError: none of these is there.
    """
    stated, environment = loaded.config.record.tracking_uri, os.environ.get("MLFLOW_TRACKING_URI")
    store = tracking_uri(loaded)
    if stated is None and environment:
        try:
            store = absolute_tracking_uri(environment)
        except ValueError as error:
            raise ConfigError(f"MLFLOW_TRACKING_URI, where {checkpoint} is to be: {error}") from error
    # Asked for a file that is not there, MLflow would make an empty store of it.
    if not store.startswith(_SQLITE) or Path(store.removeprefix(_SQLITE)).is_file():
        return store
    if stated is None and not environment:
        advice = "write `record: {tracking_uri: ...}`, or set MLFLOW_TRACKING_URI"
        raise ConfigError(f"checkpoint {checkpoint} is in MLflow, and nobody says in which; {advice}")
    raise ConfigError(
        f"checkpoint {checkpoint} is to be in the MLflow store {store}, which is not there; correct "
        f"{'MLFLOW_TRACKING_URI' if stated is None else 'record.tracking_uri'}"
    )
