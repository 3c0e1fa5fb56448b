"""The experiment that a cache belongs to: it knows the teacher, and so what the cache should say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from orchestrator.cache_tools.target import CacheTarget
from orchestrator.config.loading import LoadedExperiment
from orchestrator.pipeline.cache_stage import cache_request, complete_cache
from orchestrator.pipeline.context import Run, quiet_run
from orchestrator.pipeline.teacher_stage import known_teacher
from orchestrator.terminal.console import Console
from trainables.cache.format.storage import open_place
from trainables.cache.node.reader import open_cache
from trainables.data import load_training
from trainables.errors import ConfigError
from trainables.teacher.alignment_proof import ProofSummary, prove_alignment
from trainables.teacher.cache_request import CacheRequest
from trainables.teacher.loading import teacher_of
from trainables.training.train_teacher import TeacherFacts


@dataclass(frozen=True)
class ExperimentCache:
    """The experiment that a cache belongs to."""

    run: Run
    teacher: TeacherFacts
    request: CacheRequest

    def complete(self) -> None:
        """Compute what the cache lacks, on the workers of the experiment.

        Raises:
            CacheError: there is no room, or no network that could answer.
        """
        complete_cache(self.run, self.teacher)

    def prove(self) -> ProofSummary:
        """Have the teacher answer a random sample again; for imported logits no pair is asked.

        Raises:
            CacheError: rows are not what the teacher says.
        """
        request = self.request
        data = load_training(request.data)
        model = teacher_of(request, data) if request.teacher is not None else None
        reader = open_cache(request.uri, kept=request.features)
        return prove_alignment(reader, data, model, request.views, request.view_seed, banks=request.banks)


@contextmanager
def target_of(loaded: LoadedExperiment, console: Console) -> Iterator[CacheTarget]:
    """The cache of an experiment.

    Raises:
        ConfigError: the experiment has no cache, or its teacher is not made yet, which the cache is named by.
    """
    with quiet_run(loaded, console) as run:
        owner = experiment_cache(run)
        yield CacheTarget(open_place(owner.request.uri), owner)


def experiment_cache(run: Run) -> ExperimentCache:
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
    return ExperimentCache(run, teacher, cache_request(run, teacher))


def require_teacher_banks(run: Run) -> None:
    """Refuse an experiment without a cache.

    Raises:
        ConfigError: no objective of its space hears the teacher.
    """
    if not run.teacher_banks:
        names = ", ".join(run.space.objective_names)
        raise ConfigError(
            f"{run.experiment.name} has no cache: no objective of its space ({names}) hears a teacher, whose "
            "answers it would keep"
        )
