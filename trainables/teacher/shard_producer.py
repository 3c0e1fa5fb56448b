"""The live teacher: what it says about a view, and the shards made of that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from trainables.cache.format.identity import bank_fingerprint
from trainables.cache.format.logit_encoding import Int64s, encode_logits
from trainables.cache.format.manifest import Origin, Part, Shard, ShardRecord
from trainables.cache.format.parquet import ShardRows, write_embedding, write_shard
from trainables.cache.format.storage import Place
from trainables.data import TrainingData
from trainables.errors import CacheError
from trainables.teacher.live import Answers, LiveTeacher

# B = rows, C = classes (of logits) or channels (of images), D = numbers in an embedding, H, W = height, width


class ShardProducer:
    """Computes shards and writes them; the same in an actor, a test or a notebook."""

    def __init__(self, place: Place, origin: Origin, teacher: LiveTeacher, data: TrainingData) -> None:
        self._place = place
        self._origin = origin
        self._teacher = teacher
        self._data = data

    def produce_together(self, shards: Sequence[Shard]) -> list[ShardRecord]:
        """Run the teacher once over rows, and write the file and commit record of each of their shards.

        The shards are those of the same rows: logits and embedding.

        Raises:
            CacheError: logits that cannot be kept, or a folder that cannot be written.
        """
        rows_B = torch.arange(shards[0].first, shards[0].first + shards[0].rows)
        recipe = self._origin.recipes[shards[0].bank]
        asked = any(shard.part is Part.EMBEDDING for shard in shards)
        answers = self._teacher.answers(recipe, shards[0].view, rows_B, embedding=asked)
        ids_B = self._data.ids_M[rows_B].numpy()
        fingerprint = bank_fingerprint(self._origin.identity, recipe)
        return [self._write(shard, answers, ids_B, fingerprint) for shard in shards]

    def _write(self, shard: Shard, answers: Answers, ids_B: Int64s, fingerprint: str) -> ShardRecord:
        if shard.part is Part.EMBEDDING:
            if answers.embedding_BD is None:
                raise CacheError(f"no embedding was computed for {shard.file}; run the cache stage again")
            embedding_BD = answers.embedding_BD.numpy()
            return write_embedding(self._place, shard, ids_B, embedding_BD, fingerprint=fingerprint)
        identity = self._origin.identity
        encoded = encode_logits(
            answers.logits_BC.numpy(),
            ids_B,
            identity.dtype,
            where=f"bank {shard.bank}, view {shard.view}",
            top_k=identity.top_k,
        )
        rows = slice(shard.first, shard.first + shard.rows)
        labels_B = self._data.labels_M[rows].numpy().astype(np.int64)
        return write_shard(
            self._place,
            shard,
            ShardRows(ids_B, labels_B, encoded),
            fingerprint=fingerprint,
            classes=self._origin.classes,
        )
