"""The teacher pass: Ray Data runs the teacher over the shards that a cache still needs."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from typing import Any, Final

import ray.data
import torch
from pydantic import Field
from ray.exceptions import RayError
from ray.util.annotations import RayDeprecationWarning

from trainables.cache.format.disk_space import require_disk_space
from trainables.cache.format.identity import require_identity
from trainables.cache.format.manifest import read_manifest
from trainables.cache.format.planning import Plan, answers_of, claim_folder, plan_shards, publish, together
from trainables.cache.format.records import Origin, Shard, ShardRecord
from trainables.cache.format.storage import Place, open_place
from trainables.config import CacheIdentity, Config
from trainables.data import load_training
from trainables.data.splits import split_facts
from trainables.errors import CacheError, StillhouseError
from trainables.teacher.autocast import AutocastTeacher
from trainables.teacher.cache_request import CacheRequest, stated_features
from trainables.teacher.feature_shapes import missing_shapes
from trainables.teacher.live import LiveTeacher
from trainables.teacher.loading import kept_fingerprint, prepared_teacher
from trainables.teacher.shard_producer import ShardProducer

logger = logging.getLogger(__name__)

WRITERS: Final = ("ray", "torch", "pyarrow", "numpy")
ATTEMPTS: Final = 3

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


def build_cache(request: CacheRequest, *, progress: OnAnswers) -> CacheSummary:
    """Compute what the cache lacks and publish its manifest; at once when it lacks nothing.

    Needs a running Ray session when there is something to compute. A build that was interrupted
    goes on with the shards that are not yet committed; one that finds another at work on the same local
    folder waits for it.

    Raises:
        CacheError: the folder is another cache's, cannot be written or has no room, an actor cannot load the
            data or the teacher, or the teacher's logits cannot be kept.
    """
    place = open_place(request.uri)
    with place.exclusive():
        return _build(request, place, progress)


def _build(request: CacheRequest, place: Place, progress: OnAnswers) -> CacheSummary:
    began = time.monotonic()
    origin = claim_folder(place, request.origin)
    banks = {name: request.views.bank(name) for name in request.banks}
    plan = plan_shards(place, origin, banks)
    computed = len(plan.missing)
    if plan.missing:
        _ = request.network
        require_disk_space(place, plan, missing_shapes(request, plan))
        _compute(request, place, plan, progress, began)
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


class TeacherWorker:
    """The actor: loads data and teacher with its first shard, then computes shard after shard."""

    def __init__(self, request: Mapping[str, Any], uri: str, origin: Mapping[str, Any]) -> None:
        self._request = CacheRequest.from_plain(request)
        self._place = open_place(uri)
        self._origin = Origin.from_plain(origin)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """JSON of the commit records of the shards in `shards` (a JSON list too), or of what went wrong."""
        return {"answer": [self._answer(text) for text in batch["shards"]]}

    def _answer(self, text: str) -> str:
        # An error travels as data: as an exception it would arrive inside Ray's own, with two tracebacks.
        try:
            records = self._producer.produce_together([Shard.from_plain(plain) for plain in json.loads(text)])
        except StillhouseError as error:
            return json.dumps({"error": str(error)})
        except Exception as error:  # a user's network may raise anything
            logger.exception("the teacher pass failed")
            return json.dumps({"error": f"{type(error).__name__}: {error}"})
        return json.dumps([record.plain() for record in records])

    @cached_property
    def _producer(self) -> ShardProducer:
        request = self._request
        torch.set_num_threads(request.threads_per_actor)
        on_gpu = request.gpus_per_actor > 0 and torch.cuda.is_available()
        data = load_training(request.data)
        teacher = prepared_teacher(request.network, data)
        here = request.with_overrides(
            teacher_digest=kept_fingerprint(request.network, teacher), facts=split_facts(data)
        )
        # A node with other files than the driver's must not add to this cache.
        require_identity(self._place.uri, self._origin.identity, here.identity)
        if request.cache.autocast:
            teacher = AutocastTeacher(teacher)
        live = LiveTeacher(
            teacher,
            data,
            seed=request.view_seed,
            batch_size=request.cache.batch_size,
            device=torch.device("cuda" if on_gpu else "cpu"),
            stated=stated_features(request.network),
        )
        return ShardProducer(self._place, self._origin, live, data)


def _compute(request: CacheRequest, place: Place, plan: Plan, progress: OnAnswers, began: float) -> None:
    """Have the missing shards computed, reporting progress as each is committed.

    An actor that dies (memory, a node that goes) ends the run of Ray Data; what is left is tried again.
    """
    todo = answers_of(plan.missing)
    missing = plan.missing
    for attempt in range(1, ATTEMPTS + 1):
        done = todo - answers_of(missing)
        progress(done, todo, time.monotonic() - began)
        try:
            for records in _records(request, place, plan.origin, missing):
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


def _records(
    request: CacheRequest, place: Place, origin: Origin, missing: tuple[Shard, ...]
) -> Iterator[list[ShardRecord]]:
    """The commit records of the parts of one range of rows after the other, as they are finished."""
    work = [{"shards": json.dumps([shard.plain() for shard in group])} for group in together(missing)]
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
            yield _told_records(row["answer"])


def _told_records(answer: str) -> list[ShardRecord]:
    fields = json.loads(answer)
    if "error" in fields:
        raise CacheError(f"the teacher pass stopped: {fields['error']}")
    return [ShardRecord.from_plain(plain) for plain in fields]


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
