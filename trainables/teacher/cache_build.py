"""The teacher pass: Ray Data runs the teacher over the shards that a cache still needs."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Final

import ray.data
from pydantic import Field
from ray.exceptions import RayError
from ray.util.annotations import RayDeprecationWarning

from trainables.cache.format.disk_space import require_disk_space
from trainables.cache.format.manifest import read_manifest
from trainables.cache.format.planning import Plan, answers_of, claim_folder, plan_shards, publish
from trainables.cache.format.records import Origin, Shard, ShardRecord
from trainables.cache.format.storage import Place, open_place
from trainables.config import CacheIdentity, Config
from trainables.errors import CacheError
from trainables.teacher.cache_request import CacheRequest
from trainables.teacher.feature_shapes import missing_shapes
from trainables.teacher.shard_worker import TeacherWorker, asked_together, told_records

logger = logging.getLogger(__name__)

WRITERS: Final = ("ray", "torch", "pyarrow", "numpy")
ATTEMPTS: Final = 3

Records = Iterator[list[ShardRecord]]
"""The commit records of the parts of one range of rows after the other, as they are finished."""
Computing = Callable[[CacheRequest, Place, Origin, tuple[Shard, ...]], Records]
"""Has missing shards computed."""
OnAnswers = Callable[[int, int, float], None]
"""Called with (answers done, answers to do, seconds since the start); an answer is a (sample, view) pair."""


class CacheSummary(Config):
    """A complete cache."""

    uri: str = Field(description="an absolute path, or a URI")
    manifest: str = Field(description="sha256 of its manifest")
    identity: CacheIdentity
    rows: int = Field(description="answers in the cache: samples x views, all banks")
    bytes: int
    computed: int = Field(description="shards that this call computed")
    reused: int = Field(description="shards that were there")
    seconds: float


def build_cache(
    request: CacheRequest, *, progress: OnAnswers, computing: Computing | None = None
) -> CacheSummary:
    """Compute what the cache lacks and publish its manifest; at once when it lacks nothing.

    Needs a running Ray session when there is something to compute; `computing` does that, by default Ray Data
    with actors of its own. A build that was interrupted
    goes on with the shards that are not yet committed; one that finds another at work on the same local
    folder waits for it.

    Raises:
        CacheError: the folder is another cache's, cannot be written or has no room, an actor cannot load the
            data or the teacher, or the teacher's logits cannot be kept.
    """
    place = open_place(request.uri)
    with place.exclusive():
        return _build(request, place, progress, computing or computed_by_ray_data)


def _build(request: CacheRequest, place: Place, progress: OnAnswers, computing: Computing) -> CacheSummary:
    began = time.monotonic()
    origin = claim_folder(place, request.origin)
    banks = {name: request.views.bank(name) for name in request.banks}
    plan = plan_shards(place, origin, banks)
    computed = len(plan.missing)
    if plan.missing:
        _ = request.network
        require_disk_space(place, plan, missing_shapes(request, plan))

        def records(missing: tuple[Shard, ...]) -> Records:
            return computing(request, place, origin, missing)

        _compute(records, place, plan, progress, began)
        plan = plan_shards(place, origin, banks)
    sha256 = publish(place, plan, {name: version(name) for name in WRITERS})
    manifest, _ = read_manifest(place, sha256)
    return CacheSummary(
        uri=place.uri,
        manifest=sha256,
        identity=manifest.identity,
        rows=manifest.rows,
        bytes=manifest.bytes,
        computed=computed,
        reused=len(manifest.shards) - computed,
        seconds=time.monotonic() - began,
    )


def _compute(
    records_of: Callable[[tuple[Shard, ...]], Records],
    place: Place,
    plan: Plan,
    progress: OnAnswers,
    began: float,
) -> None:
    """Have the missing shards computed, reporting progress as each is committed.

    An actor that dies (memory, a node that goes) ends the run of Ray Data; what is left is tried again.
    """
    todo = answers_of(plan.missing)
    missing = plan.missing
    for attempt in range(1, ATTEMPTS + 1):
        done = todo - answers_of(missing)
        progress(done, todo, time.monotonic() - began)
        try:
            for records in records_of(missing):
                done += answers_of(record.shard for record in records)
                progress(done, todo, time.monotonic() - began)
        except RayError as error:
            if attempt == ATTEMPTS:
                reason = str(error).strip().splitlines()[0]
                raise CacheError(
                    f"the teacher pass broke off {ATTEMPTS} times: {reason} Finished shards are kept; run "
                    "the cache stage again (if memory ran out, with fewer actors or a lower cache.batch_size)"
                ) from error
        else:
            return
        missing = plan_shards(place, plan.origin, plan.banks).missing


def computed_by_ray_data(
    request: CacheRequest, place: Place, origin: Origin, missing: tuple[Shard, ...]
) -> Records:
    """The records of shards that actors of Ray Data compute."""
    work = [{"shards": text} for text in asked_together(missing)]
    if not work:
        return
    with _quiet_ray_data():
        answers = ray.data.from_items(work, override_num_blocks=len(work)).map_batches(
            TeacherWorker,
            fn_constructor_args=(request.plain(), place.uri, origin.plain()),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(request.actors, len(work))),
            num_cpus=request.cpus_per_actor,
            num_gpus=request.gpus_per_actor,
            # Ray Data would restart for ever a teacher that kills its actor.
            max_restarts=0,
        )
        for row in answers.iter_rows():
            yield told_records(row["answer"])


@contextmanager
def _quiet_ray_data() -> Iterator[None]:
    """No bars, start messages or tracebacks of Ray Data on the console: the caller gets progress and errors.

    Its log file keeps them.
    """
    context = ray.data.DataContext.get_current()
    kept = (context.enable_progress_bars, context.print_on_execution_start)
    consoles = [h for h in logging.getLogger("ray.data").handlers if isinstance(h, logging.StreamHandler)]
    levels = [handler.level for handler in consoles]
    context.enable_progress_bars = context.print_on_execution_start = False
    for handler in consoles:
        handler.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            # `max_restarts` has no other way in than the keywords that Ray 2.64 will drop.
            warnings.simplefilter("ignore", RayDeprecationWarning)
            yield
    finally:
        context.enable_progress_bars, context.print_on_execution_start = kept
        for handler, level in zip(consoles, levels, strict=True):
            handler.setLevel(level)
