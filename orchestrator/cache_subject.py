"""What a cache command is about: a place, and the experiment whose cache it is where one was named."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.console import Console
from orchestrator.groundwork import cache_request, known_teacher
from orchestrator.ledger import Ledger
from orchestrator.loading import LoadedExperiment
from orchestrator.places import out_folder
from orchestrator.run_context import Run
from orchestrator.stages import Stages
from orchestrator.workers import Workers
from trainables.cache.storage import Place, open_place
from trainables.cache_request import CacheRequest
from trainables.errors import ConfigError
from trainables.teacher import TeacherFacts


@dataclass(frozen=True)
class Belonging:
    """The experiment that a cache belongs to."""

    run: Run
    teacher: TeacherFacts
    request: CacheRequest


@dataclass(frozen=True)
class Subject:
    """A cache's place; without an experiment nothing can be computed, only read."""

    place: Place
    belonging: Belonging | None = None


@contextmanager
def subject_of(ref: str, loaded: LoadedExperiment | None, console: Console) -> Iterator[Subject]:
    """The cache of an experiment, or, without one, the place that `ref` is.

    Raises:
        ConfigError: the experiment has no cache, or its teacher is not made yet, which the cache is named by.
    """
    if loaded is None:
        yield Subject(open_place(ref))
        return
    with quiet_run(loaded, console) as run:
        belonging = belonging_of(run)
        yield Subject(open_place(belonging.request.uri), belonging)


def belonging_of(run: Run) -> Belonging:
    """Teacher and cache of an experiment that has made its teacher.

    Raises:
        ConfigError: it has not, or no objective asks for a cache.
    """
    require_teacher_banks(run)
    teacher = known_teacher(run)
    if teacher is None:
        raise ConfigError(
            f"the teacher of {run.experiment.name} is not made yet in {run.out}, and its cache is named by "
            f"it; run it first: stillhouse run {run.loaded.source}, or give the cache's folder instead"
        )
    return Belonging(run, teacher, cache_request(run, teacher))


def require_teacher_banks(run: Run) -> None:
    """Refuse an experiment without a cache.

    Raises:
        ConfigError: no objective of its space hears the teacher.
    """
    if not run.teacher_banks:
        names = ", ".join(run.space.objective_names)
        raise ConfigError(
            f"{run.experiment.name} has no cache: no objective of its space ({names}) asks for one"
        )


@contextmanager
def quiet_run(loaded: LoadedExperiment, console: Console) -> Iterator[Run]:
    """The experiment as stages see it; nothing is started, and no folder is made for one that never ran."""
    out = out_folder(loaded)
    with tempfile.TemporaryDirectory() as nowhere:
        ledger = Ledger(out if (out / "ledger.jsonl").exists() else Path(nowhere))
        try:
            with Workers(loaded.config, out, console) as workers:
                yield Run(loaded, out, ledger, Stages(ledger, console), workers, console)
        finally:
            ledger.close()
