"""Whether the folders and files that an experiment names are there, and what files of weights state."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

from orchestrator.config.schema import ExperimentConfig, TeacherConfig
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
    problems = []
    root, checkpoint = config.data.root, config.teacher.checkpoint
    if root is not None and not config.data.download and not is_there(Path(root), stat.S_ISDIR):
        problems.append(_absent(("data", "root"), root, "folder", document))
    unlabelled = None if config.data.unlabelled is None else config.data.unlabelled.root
    if unlabelled is not None and not is_there(Path(unlabelled), stat.S_ISDIR):
        problems.append(_absent(("data", "unlabelled", "root"), unlabelled, "folder", document))
    named = {"teacher": checkpoint, "student": config.student.checkpoint}
    files = {name: file for name, file in named.items() if file is not None and not is_elsewhere(file)}
    found_wrong = {
        name: why_unreadable(Path(file), suffixes=SUFFIXES if name == "student" else (*SUFFIXES, ONNX))
        for name, file in files.items()
    }
    for section, problem in found_wrong.items():
        if problem is not None:
            found, file = document.value((section, "checkpoint")), files[section]
            there = "" if found == file else f", not {file}"
            problems.append(Problem((section, "checkpoint"), f"found {shown(found)}; {problem}{there}"))
    is_readable = "teacher" in files and found_wrong["teacher"] is None
    if is_readable and not _tells_normalisation(config.teacher):
        text = f"it does not say how images were normalised when it was trained; {TO_WRITE}"
        problems.append(Problem(("teacher", "checkpoint"), text))
    if problems:
        raise as_error(document, problems)


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
