"""`stillhouse submit`: an experiment as a job, with all that it needs of the folder that is sent."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from pathlib import Path

from cluster.package import sources
from cluster.submit import JobResult, submit_job
from orchestrator.config.loading import EXPERIMENTS_FOLDER, SPACES_FOLDER, LoadedExperiment, load_experiment
from orchestrator.config.overrides import Overrides
from trainables.errors import ConfigError


def submit_experiment(experiment: str, overrides: Overrides, *, address: str | None, wait: bool) -> JobResult:
    """Send the current folder, and run the experiment there.

    Raises:
        ConfigError: a file of the experiment would not be among what is sent.
        ClusterError: as `submit_job` says.
    """
    loaded = load_experiment(experiment, overrides=overrides, check_paths=False)
    _require_sent(loaded, Path.cwd())
    command = ["python", "-m", "orchestrator", "run", experiment, *overrides.options()]
    return submit_job(command, address=address, wait=wait)


def _require_sent(loaded: LoadedExperiment, folder: Path) -> None:
    """Refuse where the job would look in vain; an absolute path elsewhere may be on storage of all nodes."""
    source = loaded.source
    if not source.is_absolute() and not source.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(
            f"{source} lies outside {folder}, the folder that is sent; start from a folder that holds it"
        )
    sent = {(folder / each.path).resolve() for each in sources(folder)}
    left = [str(file) for file in _files(loaded) if _is_in(file, folder) and file.resolve() not in sent]
    if left:
        raise ConfigError(
            f"{', '.join(left)}: the experiment needs this, and it is not among what is sent: git ignores it "
            "or it lies where results and environments do; track it, or move it"
        )


def _files(loaded: LoadedExperiment) -> Iterator[Path]:
    yield loaded.source
    yield loaded.space_source
    for code in loaded.code.values():
        yield from code.paths


def _is_in(file: Path, folder: Path) -> bool:
    """Whether the file has a place in the folder, though it may lie behind a link, and is not installed.

    An environment may lie in the folder, with Stillhouse's own files in it: a cluster has its own.
    """
    place = file.absolute()
    return place.is_relative_to(folder) and not any(place.is_relative_to(each) for each in _installed())


def _installed() -> list[Path]:
    paths = sysconfig.get_paths()
    libraries = [Path(paths[name]) for name in ("stdlib", "purelib", "platlib")]
    return [*libraries, EXPERIMENTS_FOLDER, SPACES_FOLDER]
