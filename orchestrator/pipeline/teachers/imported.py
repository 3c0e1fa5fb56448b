"""A teacher of which only logits are known: what an import left, and what a run makes of it."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from orchestrator.config.loading import LoadedExperiment
from orchestrator.config.paths import imported_file
from trainables.cache.tools.import_logits import ImportedTeacher
from trainables.data import TrainingData
from trainables.data.splits import split_facts
from trainables.errors import ConfigError
from trainables.foreign_files import foreign_file
from trainables.local_files import replace_text
from trainables.training.train_teacher import TeacherFacts


def read_imported(loaded: LoadedExperiment) -> ImportedTeacher:
    """What the import kept.

    Raises:
        ConfigError: nothing was imported yet, or the record is damaged; it names the command.
    """
    path = imported_file(loaded)
    command = f"stillhouse cache import FILE {loaded.source}"
    if not path.is_file():
        raise ConfigError(
            f"{loaded.config.name} has `teacher: {{imported: true}}`, but no logits were imported ({path} is "
            f"not there); bring them: {command}"
        )
    with foreign_file(
        lambda why: ConfigError(f"{path} cannot be read: {why}; import the logits again: {command}")
    ):
        document = json.loads(path.read_bytes())
    try:
        return ImportedTeacher.from_plain(document)
    except ValidationError as error:
        raise ConfigError(
            f"{path} is not of this version ({error.errors()[0]['msg']}); import the logits again: {command}"
        ) from error


def keep_imported(loaded: LoadedExperiment, record: ImportedTeacher) -> Path:
    """Keep what is known of the teacher, for the runs that follow."""
    path = imported_file(loaded)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, record.model_dump_json(indent=1))
    return path


def imported_facts(record: ImportedTeacher, data: TrainingData) -> TeacherFacts:
    """The facts of a teacher without a network: its answers are its identity."""
    return TeacherFacts(
        weights=None,
        fingerprint=record.teacher,
        params=None,
        selection_accuracy=record.selection_accuracy,
        split=split_facts(data),
    )
