"""One worker of the teacher pass: it is asked for shards, and answers with their commit records, as JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch

from trainables.cache.format.identity import require_identity
from trainables.cache.format.planning import together
from trainables.cache.format.records import Origin, Shard, ShardRecord
from trainables.cache.format.storage import open_place
from trainables.data import load_training
from trainables.data.splits import split_facts
from trainables.errors import CacheError, StillhouseError
from trainables.teacher.autocast import AutocastTeacher
from trainables.teacher.cache_request import CacheRequest, stated_features
from trainables.teacher.live import LiveTeacher
from trainables.teacher.loading import kept_fingerprint, prepared_teacher
from trainables.teacher.shard_producer import ShardProducer

logger = logging.getLogger(__name__)


def asked_together(missing: tuple[Shard, ...]) -> list[str]:
    """What a worker is asked for at once, the parts of a range of rows, for one range after the other."""
    return [json.dumps([shard.plain() for shard in group]) for group in together(missing)]


def told_records(answer: str) -> list[ShardRecord]:
    """The commit records of an answer.

    Raises:
        CacheError: it is what went wrong.
    """
    fields = json.loads(answer)
    if "error" in fields:
        raise CacheError(f"the teacher pass stopped: {fields['error']}")
    return [ShardRecord.from_plain(plain) for plain in fields]


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
