"""The driver's side of stages: done by slots where these are up, and otherwise by a task of Ray's."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import ray

from trainables.cache.format.records import Origin, Shard, ShardRecord
from trainables.cache.format.storage import Place
from trainables.errors import CacheError, StillhouseError
from trainables.slots.follower import Follower
from trainables.slots.lru_cache import LruCache
from trainables.slots.messages import End, Message, Stage, StageJob
from trainables.slots.stages.stage_jobs import made_of
from trainables.slots.stages.stages import STAGES
from trainables.teacher.cache_request import CacheRequest
from trainables.teacher.shard_worker import asked_together, told_records

HOLDER: Final = "driver"
WAITING_FOR_EACH_SLOT: Final = 2
"""Parts of the cache that are under way, so that no slot waits for the driver."""

OnEpoch = Callable[[int, dict[str, float]], None]


def done_by_slot(broker: Any, stage: Stage, request: Mapping[str, Any], on_epoch: OnEpoch) -> dict[str, Any]:
    """What some slot makes of a stage, with each epoch that it tells of.

    Raises:
        StillhouseError: whatever the stage raises; or it killed its worker several times.
        RuntimeError: the stage raised something else, whose traceback is in the text.
    """
    follower = _follower(broker, stage, request)
    follower.submit()
    while True:
        message = follower.next()
        if message.end is not None:
            return made_of(message)
        on_epoch(message.epoch, message.metrics)


def shards_by_slots(
    broker: Any, slots: int, request: CacheRequest, place: Place, origin: Origin, missing: Sequence[Shard]
) -> Iterator[list[ShardRecord]]:
    """The commit records of shards that slots compute, range of rows by range of rows.

    Raises:
        CacheError: a slot could not compute a part.
    """
    worker = [request.plain(), place.uri, origin.plain()]
    cache = uuid.uuid4().hex
    left = iter(asked_together(tuple(missing)))
    waiting: dict[Any, Follower] = {}

    def begin() -> None:
        if (text := next(left, None)) is not None:
            follower = _follower(broker, Stage.SHARDS, {"cache": cache, "worker": worker, "shards": text})
            follower.submit()
            waiting[follower.ask()] = follower

    for _ in range(WAITING_FOR_EACH_SLOT * slots):
        begin()
    try:
        while waiting:
            (ready,), _ = ray.wait(list(waiting), num_returns=1)
            follower = waiting.pop(ready)
            message = follower.hear(ray.get(ready))
            if message is None:
                waiting[follower.ask()] = follower
                continue
            begin()
            yield told_records(_answer(message))
    finally:
        for follower in waiting.values():
            follower.cancel()


def _answer(message: Message) -> str:
    try:
        return str(made_of(message)["answer"])
    except StillhouseError as error:
        raise CacheError(f"the teacher pass stopped: {error}") from error


def _follower(broker: Any, stage: Stage, request: Mapping[str, Any]) -> Follower:
    # By no name that comes again: the broker would answer from what was made then.
    job = StageJob(job_id=f"{stage}-{uuid.uuid4().hex[:12]}", stage=stage, request=dict(request))
    return Follower(broker, job.job_id, job.plain(), holder=HOLDER)


def done_by_task(
    broker: Any,
    stage: Stage,
    request: Mapping[str, Any],
    on_epoch: OnEpoch,
    *,
    resources: tuple[float, float],
) -> dict[str, Any]:
    """What a task on some worker makes of a stage; `resources` are its CPUs and GPUs.

    Raises:
        Exception: whatever the stage raises.
    """
    follower = Follower(broker, f"{stage}-{uuid.uuid4().hex[:12]}", None, holder=HOLDER)
    attempt = follower.submit()
    cpus, gpus = resources
    remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=2)(_task)
    result = remote.remote(stage, dict(request), broker, follower.job_id, attempt)
    try:
        return _followed(follower, result, on_epoch)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error


def _task(stage: Stage, request: dict[str, Any], broker: Any, job_id: str, attempt: int) -> dict[str, Any]:
    def tell(epoch: int, metrics: dict[str, float]) -> None:
        ray.get(broker.report.remote(job_id, attempt, Message(epoch=epoch, metrics=metrics)))

    made = STAGES[stage](request, tell, LruCache(1))
    ray.get(broker.report.remote(job_id, attempt, Message(end=End.COMPLETED)))
    return made


def _followed(follower: Follower, result: Any, on_epoch: OnEpoch) -> dict[str, Any]:
    """The result, after each epoch was told; a task that failed raises at once.

    A result may be there before the last epochs are heard. Where a broker that died took their messages with
    it, nothing comes any more, and they are told by nobody.
    """
    news, waiting = follower.ask(), [result]
    while True:
        ready, _ = ray.wait([news, *waiting], num_returns=1)
        if ready[0] == result:
            ray.get(result)
            waiting = []
            continue
        message = follower.hear(ray.get(news))
        if message is not None and message.end is None:
            on_epoch(message.epoch, message.metrics)
        elif message is not None or not waiting:
            made: dict[str, Any] = ray.get(result)
            return made
        news = follower.ask()
