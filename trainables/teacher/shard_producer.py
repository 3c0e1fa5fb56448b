"""The live teacher: what it says about a view, and the shards made of that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from trainables.cache.format.logit_encoding import Int64s, encode_logits, kept_feature
from trainables.cache.format.parquet import ShardRows, write_feature, write_shard
from trainables.cache.format.planning import pieces_of
from trainables.cache.format.records import Origin, Shard, ShardRecord
from trainables.cache.format.storage import Place
from trainables.config.cache import CLASSIFIER, LOGITS, FeaturePrecision
from trainables.data import TrainingData
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

        The shards are a group of `together`: logits and features of common rows of a view. A shard is written
        as soon as its last row is answered, so that of whole maps, whose files hold fewer rows, no more than
        one file is in memory.

        Raises:
            CacheError: logits or features that cannot be kept, or a folder that cannot be written.
        """
        if shards[0].part == CLASSIFIER:
            return [self._write_classifier(shard) for shard in shards]
        recipe = self._origin.recipes[shards[0].bank]
        records: dict[Shard, ShardRecord] = {}
        gathered: dict[Shard, list[Tensor]] = {shard: [] for shard in shards}
        for rows, needing in pieces_of(shards):
            names = tuple(shard.part for shard in needing if shard.part != LOGITS)
            rows_B = torch.arange(rows.start, rows.stop)
            answers = self._teacher.answers(recipe, shards[0].view, rows_B, names)
            for shard in needing:
                gathered[shard].append(_part(answers, shard.part))
                if rows.stop == shard.first + shard.rows:
                    values = gathered.pop(shard)
                    records[shard] = self._write(shard, torch.cat(values) if len(values) > 1 else values[0])
        return [records[shard] for shard in shards]

    def _write(self, shard: Shard, values: Tensor) -> ShardRecord:
        rows = slice(shard.first, shard.first + shard.rows)
        ids_B: Int64s = self._data.ids_M[rows].numpy()
        fingerprint, where = self._origin.fingerprint_of(shard), f"bank {shard.bank}, view {shard.view}"
        if shard.part != LOGITS:
            kept = kept_feature(
                values.numpy(), ids_B, self._origin.feature_precision, f"{where}: values of {shard.part}"
            )
            return write_feature(self._place, shard, ids_B, kept, fingerprint=fingerprint)
        identity = self._origin.identity
        encoded = encode_logits(values.numpy(), ids_B, identity.dtype, where=where, top_k=identity.top_k)
        labels_B = self._data.labels_M[rows].numpy().astype(np.int64)
        return write_shard(
            self._place,
            shard,
            ShardRows(ids_B, labels_B, encoded),
            fingerprint=fingerprint,
            classes=self._origin.classes,
        )

    def _write_classifier(self, shard: Shard) -> ShardRecord:
        """A row for each class: its weights, and the bias behind them."""
        classifier = self._teacher.classifier()
        whole = torch.cat([classifier.weight_CD, classifier.bias_C[:, None]], dim=1).numpy()
        classes = np.arange(shard.first, shard.first + shard.rows)
        kept = kept_feature(whole, classes, FeaturePrecision.FP32, "weights of the teacher's classifier")
        fingerprint = self._origin.fingerprint_of(shard)
        return write_feature(self._place, shard, classes, kept, fingerprint=fingerprint)


def _part(answers: Answers, part: str) -> Tensor:
    return answers.logits_BC if part == LOGITS else answers.features[part]
