"""What the parent run is told of an experiment before anything is trained: files, code, hardware."""

from __future__ import annotations

import os
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Final

import torch

from orchestrator import __version__
from orchestrator.config.asked_features import taught_objectives
from orchestrator.config.loading import LoadedExperiment
from orchestrator.terminal.masking import file_without_secrets
from orchestrator.tracking.parent import ParentFacts
from trainables.evaluation.profiling import device_name

_LIBRARIES: Final = ("ray", "torch", "torchvision", "mlflow", "pyarrow", "optuna")
_GIT_S: Final = 10.0


def experiment_facts(loaded: LoadedExperiment) -> ParentFacts:
    """What the record says of an experiment, as its two files have it and this machine is."""
    config, space = loaded.config, loaded.space
    dimensions = {key for name in space.objective_names for key in space.domains(name)}
    return ParentFacts(
        name=config.name,
        config={name: value for name, value in config.plain().items() if name != "out"},
        searched={f"{section}.{name}" for section, name in dimensions if section in ("student", "training")},
        constants={"space": space.plain()},
        versions={"stillhouse": __version__, **{name: version(name) for name in _LIBRARIES}},
        summary=f"{_whose(loaded)}, searched over {', '.join(space.objective_names)}.",
        rank_by=space.search.rank_by,
        tags={**code_version(loaded.folder), **_hardware()},
        files=_files(loaded),
    )


def code_version(folder: Path) -> dict[str, str]:
    """The commit of the repository that a folder is in, and whether tracked files differ from it, as tags.

    Empty where there is no repository, or no git.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    if commit is None or changed is None:
        return {}
    return {"mlflow.source.git.commit": commit, "code.dirty": "yes" if changed else "no"}


def _git(folder: Path, *words: str) -> str | None:
    try:
        found = subprocess.run(  # noqa: S603 (no shell, and no word of it comes from outside)
            ["git", "-C", str(folder), *words],  # noqa: S607 (whichever git the user has)
            capture_output=True,
            text=True,
            timeout=_GIT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def _hardware() -> dict[str, str]:
    """Of the machine that the run is started on; each student's latencies name their own device."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "hardware.cpu": device_name(torch.device("cpu")),
        "hardware.cores": str(len(os.sched_getaffinity(0))),
        "hardware.memory": f"{memory / 1024**3:.0f} GiB",
        "hardware.gpus": ", ".join(gpus) or "none",
    }


def _files(loaded: LoadedExperiment) -> dict[str, str]:
    """The texts of experiment and space, without secrets."""
    named = {"experiment.yaml": loaded.source, "space.yaml": loaded.space_source}
    return {
        name: file_without_secrets(path.read_text(errors="replace"))
        for name, path in named.items()
        if path.is_file()
    }


def _whose(loaded: LoadedExperiment) -> str:
    if not taught_objectives(loaded.space):
        return "Students"
    return "Students of several teachers" if loaded.config.teachers else "Students of one teacher"
