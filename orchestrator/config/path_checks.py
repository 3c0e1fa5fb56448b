"""Whether the folders and files that an experiment names are there, and what files of weights state."""

from __future__ import annotations

import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from orchestrator.config.schema import ExperimentConfig
from orchestrator.config.teacher_schema import TeacherConfig
from orchestrator.config.validation_messages import Problem, as_error, shown
from orchestrator.config.yaml_reader import Document, KeyPath
from trainables.checkpoint_header import SUFFIXES, stated_normalisation, why_unreadable
from trainables.config.checkpoints import is_elsewhere
from trainables.config.teacher import ONNX, TO_WRITE


def is_there(path: Path, is_wanted: Callable[[int], bool]) -> bool:
    """Whether a file of this kind can be seen; false for a name that no file can have."""
    try:
        return is_wanted(path.stat().st_mode)
    except OSError:
        return False


def check_paths(config: ExperimentConfig, document: Document) -> None:
    """Look at what the file names on this machine: folders, and what checkpoints say of themselves.

    Raises:
        ConfigError: what is not there, or cannot be used.
    """
    problems: list[Problem] = []
    root = config.data.root
    if root is not None and not config.data.download and not is_there(Path(root), stat.S_ISDIR):
        problems.append(_absent(("data", "root"), root, "folder", document))
    unlabelled = None if config.data.unlabelled is None else config.data.unlabelled.root
    if unlabelled is not None and not is_there(Path(unlabelled), stat.S_ISDIR):
        problems.append(_absent(("data", "unlabelled", "root"), unlabelled, "folder", document))
    if config.student.checkpoint is not None:
        problems += _of_checkpoint(("student",), config.student.checkpoint, document)
    for key, teacher in _teachers(config):
        if teacher.checkpoint is not None:
            problems += _of_teacher(key, teacher, teacher.checkpoint, document)
    if problems:
        raise as_error(document, problems)


def _teachers(config: ExperimentConfig) -> list[tuple[KeyPath, TeacherConfig]]:
    """Each teacher, and where it stands in the file."""
    if not config.teachers:
        return [(("teacher",), config.teacher)]
    return [(("teachers", place), teacher) for place, teacher in enumerate(config.teachers)]


def _of_teacher(key: KeyPath, teacher: TeacherConfig, file: str, document: Document) -> list[Problem]:
    problems = _of_checkpoint(key, file, document, suffixes=(*SUFFIXES, ONNX))
    if problems or is_elsewhere(file) or _tells_normalisation(teacher):
        return problems
    text = f"it does not say how images were normalised when it was trained; {TO_WRITE}"
    return [Problem((*key, "checkpoint"), text)]


def _of_checkpoint(
    key: KeyPath, file: str, document: Document, *, suffixes: Sequence[str] = SUFFIXES
) -> list[Problem]:
    """What is wrong with a file of weights, at most one thing; one that is to be brought is not looked at."""
    problem = None if is_elsewhere(file) else why_unreadable(Path(file), suffixes=suffixes)
    if problem is None:
        return []
    found = document.value((*key, "checkpoint"))
    there = "" if found == file else f", not {file}"
    return [Problem((*key, "checkpoint"), f"found {shown(found)}; {problem}{there}")]


def _tells_normalisation(teacher: TeacherConfig) -> bool:
    """Whether experiment or checkpoint says it; libraries are asked later of their own files."""
    return (
        teacher.normalisation is not None
        or (teacher.model is not None and teacher.model.is_of_library)
        or stated_normalisation(Path(str(teacher.checkpoint))) is not None
    )


def _absent(path: KeyPath, resolved: str, kind: str, document: Document) -> Problem:
    found = document.value(path)
    there = "" if found == resolved else f", not {resolved}"
    return Problem(path, f"found {shown(found)}; allowed: an existing {kind}{there}")
