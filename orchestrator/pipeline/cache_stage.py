"""The stage `cache`: what the teacher says about every view, and the proof that both belong together."""

from __future__ import annotations

from typing import Any, Final

from orchestrator.pipeline.context import Run
from orchestrator.terminal.formatting import duration
from trainables.cache.format.disk_space import bytes_in_words, require_disk_space
from trainables.cache.format.manifest import DamagedCache, discard_shards
from trainables.cache.format.planning import plan_shards
from trainables.cache.format.storage import open_place
from trainables.cache.node.reader import open_cache
from trainables.config import CacheIdentity, ModelConfig, digest_of
from trainables.data import TrainingData, load_training
from trainables.data.splits import split_facts
from trainables.teacher.alignment_proof import prove_alignment
from trainables.teacher.cache_build import CacheSummary, build_cache
from trainables.teacher.cache_request import CacheRequest
from trainables.teacher.feature_shapes import feature_shapes, missing_shapes
from trainables.teacher.loading import teacher_of
from trainables.training.train_teacher import TeacherFacts

ROWS_PER_ACTOR = 50_000
NO_TEACHER: Final = "0" * 64
"""Stands for a teacher that is not made yet."""


def cache_identity(run: Run, teacher: TeacherFacts | None) -> CacheIdentity | None:
    """What the cache of this experiment is made from; none when no objective of the space asks for one."""
    return cache_request(run, teacher).identity if teacher is not None and _has_cache(run) else None


def cache_stage(run: Run, teacher: TeacherFacts, *, needed: bool) -> CacheSummary | None:
    """The teacher's answers, complete and proved; none when no objective of the space asks for them.

    With `needed` false (slots have nothing left to do) the ledger's word is enough.
    """
    if not _has_cache(run):
        return None
    request = cache_request(run, teacher)
    banks = {bank: run.experiment.views.bank(bank).views for bank in request.banks}
    place = run.key_path(request.uri)
    key = digest_of([request.identity.plain(), place, request.origin.plain(), banks])

    def build() -> dict[str, Any]:
        run.workers.start_slots_early()
        return complete_cache(run, teacher).plain()

    result = run.stages.run("cache", key, build, still_valid=lambda _: not needed)
    # A cache beside the experiment's file may have been moved with it.
    return CacheSummary.from_plain({**result, "uri": open_place(request.uri).uri})


def _has_cache(run: Run) -> bool:
    return bool(run.teacher_banks) and not run.experiment.cache.online


def complete_cache(run: Run, teacher: TeacherFacts) -> CacheSummary:
    """Compute what the cache lacks on the workers of the run, and prove all of it against the live teacher.

    Raises:
        CacheError: it has no room, cannot be computed, or is not what the teacher says.
    """
    request = cache_request(run, teacher)
    cpus, gpus = run.workers.stage_resources()
    views = sum(run.experiment.views.bank(bank).views for bank in request.banks)
    actors = _actors(run, teacher, views)
    sized = request.with_overrides(actors=actors, cpus_per_actor=cpus, gpus_per_actor=gpus)
    return _built_and_proved(run, sized)


def _built_and_proved(run: Run, request: CacheRequest) -> CacheSummary:
    """A complete cache that says what the teacher says; files found damaged are computed again, alone."""
    summary = _built(run, request)
    try:
        _prove(run, request, summary)
    except DamagedCache as error:
        run.console.info(f"{error}; computing {len(error.shards)} files again")
        discard_shards(open_place(summary.uri), error.shards)
        summary = _built(run, request)
        _prove(run, request, summary)
    return summary


def _built(run: Run, request: CacheRequest) -> CacheSummary:
    with run.console.progress("cache") as progress:
        return build_cache(
            request,
            computing=run.workers.computing(),
            progress=lambda done, total, s: progress.update(done, pace(done, total, s), total=total),
        )


def pace(done: int, total: int, seconds: float) -> str:
    """How fast the teacher answers, and how long it goes on like that; nothing before its first answers."""
    if done == 0 or seconds <= 0:
        return ""
    rate = done / seconds
    return f"{rate:,.0f} answers/s, {duration((total - done) / rate)} left"


def cache_request(run: Run, teacher: TeacherFacts) -> CacheRequest:
    """Which cache the experiment needs of this teacher."""
    return CacheRequest(
        data=run.experiment.data,
        facts=teacher.split,
        teacher=run.kept(teacher),
        unmade=_network(run),
        teacher_digest=teacher.fingerprint,
        views=run.experiment.views,
        banks=run.teacher_banks,
        view_seed=run.view_seed,
        cache=run.experiment.cache,
        asked=dict(run.teacher_features),
        asks_classifier=run.asks_classifier,
        folder=str(run.out / "cache"),
        threads_per_actor=run.experiment.cluster.cpus_per_worker,
    )


def _network(run: Run) -> ModelConfig | None:
    """The one network of PyTorch that is the teacher, or will be; none where there is no such one."""
    config = run.experiment
    if config.teachers or config.teacher.imported:
        return None
    return config.teacher.source.model


def unmade_teacher(data: TrainingData) -> TeacherFacts:
    """What can be said of the teacher before it is made; its cache has no file yet."""
    return TeacherFacts(
        weights=None, fingerprint=NO_TEACHER, params=None, selection_accuracy=None, split=split_facts(data)
    )


def require_cache_room(run: Run, teacher: TeacherFacts | None, data: TrainingData) -> None:
    """Refuse a cache that its place cannot hold, and features that the teacher does not have.

    Raises:
        CacheError: naming what it needs, or what the teacher has; or the place cannot be used.
    """
    if not run.teacher_banks:
        return
    request = cache_request(run, teacher or unmade_teacher(data))
    feature_shapes(request, run.live_features)  # what it is asked beside the student
    if run.experiment.cache.online:
        return
    place = open_place(request.uri if teacher or request.cache.uri else request.folder)
    banks = {name: request.views.bank(name) for name in request.banks}
    plan = plan_shards(place, request.origin, banks)
    require_disk_space(place, plan, missing_shapes(request, plan))


def _actors(run: Run, teacher: TeacherFacts, views: int) -> int:
    """As many teachers as the cluster has devices for, but no more than the rows are worth starting."""
    capacity = run.workers.capacity
    devices = int(capacity.gpus or capacity.cpus // run.experiment.cluster.cpus_per_worker)
    return max(1, min(devices, teacher.split.n_rows * views // ROWS_PER_ACTOR))


def _prove(run: Run, request: CacheRequest, summary: CacheSummary) -> None:
    data = load_training(request.data)
    model = teacher_of(request, data) if request.teacher is not None else None
    reader = open_cache(summary.uri, manifest_sha=summary.manifest, kept=request.features)
    proof = prove_alignment(reader, data, model, request.views, request.view_seed, banks=request.banks)
    how = (
        f"{proof.pairs} answers proved against the live teacher" if model else "ids, labels, accuracy proved"
    )
    run.console.info(
        f"cache {summary.identity.digest()[:8]}: {summary.rows:,} answers, {bytes_in_words(summary.bytes)}, "
        f"{summary.reused} files reused; {how}"
    )
