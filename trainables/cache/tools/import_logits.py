"""Logits that someone already has, of a teacher that is not here: checked, and kept as a cache.

Without weights a teacher is known by its answers: the digest in the cache's identity is one of the sample
ids and the logits themselves. So other logits are another teacher, and nothing claims to know their network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import Field

from trainables.cache.format.disk_space import require_disk_space
from trainables.cache.format.identity import bank_fingerprint
from trainables.cache.format.logit_encoding import Float32s, Int64s, encode_logits
from trainables.cache.format.parquet import ShardRows, write_shard
from trainables.cache.format.planning import agreed_origin, claim_folder, plan_shards, publish
from trainables.cache.format.records import Origin, Shard, ShardRecord
from trainables.cache.format.storage import Place
from trainables.cache.tools.callbacks import OnStep
from trainables.config import BankConfig, BroughtValues, Config, digest_of
from trainables.data import ImageSplit, TrainingData
from trainables.errors import DataError
from trainables.local_files import file_sha256

# N = rows of the file, later samples of the training split; C = classes

CHANCE_DEVIATIONS: Final = 3.0
NAMED: Final = 5


class ImportedTeacher(Config):
    """What is known of a teacher whose logits were brought."""

    teacher: str = Field(
        description="sha256 of the sample ids and logits of the training split, in float32, and of `values`"
    )
    source: str = Field(description="name of the file that they came from")
    source_sha256: str
    accuracy: float = Field(description="on the training split; a fraction")
    chance: float = Field(description="the accuracy that the same answers would have on shuffled samples")
    selection_accuracy: float | None = Field(
        description="on the selection split, where the file has logits of all of it"
    )
    values: BroughtValues = Field(
        "logits",
        description="what the file's numbers are; of probabilities the logarithms are kept",
        # Left out of the record of logits, which therefore reads as it always did.
        exclude_if=lambda values: values == "logits",
    )


@dataclass(frozen=True)
class BroughtLogits:
    """The logits of a file, sorted into the order of the training split."""

    record: ImportedTeacher
    logits_NC: Float32s
    selection_NC: Float32s | None = None
    """Those of the selection split in its order, N of its samples, where the file has all of them."""


def check_logits(
    path: Path,
    ids: Int64s,
    logits: Float32s,
    data: TrainingData,
    values: BroughtValues = "logits",
) -> BroughtLogits:
    """The logits in the order of the training split, after all that can be checked without the teacher.

    Ids of the selection split may be in the file too; they tell the teacher's accuracy there, and students
    are compared with them. The share of
    right answers must be above what the same answers would have on shuffled samples, which is how shifted
    ids show: Σ_c p(label c) p(answer c), by three standard errors of a binomial share.

    Raises:
        DataError: the ids do not cover the training split exactly once; another number of classes; logits
            that are not finite; answers that are right as often as by chance.
    """
    n_classes = len(data.classes)
    if logits.shape[1] != n_classes:
        raise DataError(
            f"{path}: {logits.shape[1]} logits in a row, but the data set has {n_classes} classes "
            f"({', '.join(data.classes[:NAMED])}{', ...' if n_classes > NAMED else ''})"
        )
    _require_cover(path, ids, data)
    bad = ids[~np.isfinite(logits).all(axis=1)]
    if len(bad):
        raise DataError(f"{path}: logits are not finite in {len(bad)} rows (sample ids {_named(bad)})")
    order = np.argsort(ids)
    train_NC = logits[_places(ids, data.train.ids.numpy(), order)]
    accuracy, chance = _accuracy(path, train_NC, data.train)
    selection_NC = _of_selection(ids, logits, order, data.selection)
    record = ImportedTeacher(
        teacher=_digest(data.train.ids.numpy(), train_NC, values),
        source=path.name,
        source_sha256=file_sha256(path),
        accuracy=accuracy,
        chance=chance,
        selection_accuracy=None if selection_NC is None else _right(selection_NC, data.selection),
        values=values,
    )
    return BroughtLogits(record, train_NC, selection_NC)


def import_logits(
    place: Place,
    origin: Origin,
    banks: Mapping[str, BankConfig],
    brought: BroughtLogits,
    data: TrainingData,
    progress: OnStep = lambda *_: None,
) -> list[ShardRecord]:
    """Write the shards that the folder lacks, publish its manifest, and give the records of those written.

    Raises:
        CacheError: the folder is another cache's, has no room, or cannot be written; logits that the
            precision cannot keep.
    """
    with place.exclusive():
        require_disk_space(place, plan_shards(place, agreed_origin(place, origin), banks))
        origin = claim_folder(place, origin)
        plan = plan_shards(place, origin, banks)
        written = []
        for shard in plan.missing:
            written.append(_write(place, origin, shard, brought, data))
            progress(len(written), len(plan.missing))
        publish(place, plan_shards(place, origin, banks), _origin_of(brought.record))
    return written


def _origin_of(record: ImportedTeacher) -> dict[str, str]:
    return {"imported": record.source, **({} if record.values == "logits" else {"values": record.values})}


def _write(
    place: Place, origin: Origin, shard: Shard, brought: BroughtLogits, data: TrainingData
) -> ShardRecord:
    rows = slice(shard.first, shard.first + shard.rows)
    ids_B = data.train.ids[rows].numpy()
    identity = origin.identity
    encoded = encode_logits(
        brought.logits_NC[rows],
        ids_B,
        identity.dtype,
        where=f"{brought.record.source}, bank {shard.bank}",
        top_k=identity.top_k,
    )
    return write_shard(
        place,
        shard,
        ShardRows(ids_B, data.train.labels[rows].numpy().astype(np.int64), encoded),
        fingerprint=bank_fingerprint(identity, origin.recipes[shard.bank]),
        classes=origin.classes,
    )


def _require_cover(path: Path, ids: Int64s, data: TrainingData) -> None:
    train, selection = data.train.ids.numpy(), data.selection.ids.numpy()
    unique, counts = np.unique(ids, return_counts=True)
    problems = {
        "given more than once": unique[counts > 1],
        "missing": np.setdiff1d(train, unique),
        "of neither the training nor the selection split": np.setdiff1d(unique, np.union1d(train, selection)),
    }
    told = "; ".join(f"{len(bad)} {what} ({_named(bad)})" for what, bad in problems.items() if len(bad))
    if told:
        raise DataError(
            f"{path}: sample ids do not cover the training split exactly once: {told}; a sample's id is its "
            "row in the training part of the data set, before the selection split is taken out"
        )


def _accuracy(path: Path, train_NC: Float32s, train: ImageSplit) -> tuple[float, float]:
    labels_N, answers_N = train.labels.numpy(), train_NC.argmax(axis=1)
    n_classes = train_NC.shape[1]
    accuracy = float((labels_N == answers_N).mean())
    shares = [np.bincount(column, minlength=n_classes) / len(labels_N) for column in (labels_N, answers_N)]
    chance = float(shares[0] @ shares[1])
    if accuracy <= chance + CHANCE_DEVIATIONS * (chance * (1 - chance) / len(labels_N)) ** 0.5:
        raise DataError(
            f"{path}: its answers are right on {100 * accuracy:.1f} % of the training split, and would be on "
            f"{100 * chance:.1f} % by chance; the ids are shifted, or the classes are in another order"
        )
    return accuracy, chance


def _places(ids: Int64s, wanted: Int64s, order: Int64s) -> Int64s:
    """Where the wanted ids, all of them there, stand in the file, whose ids `order` sorts."""
    return order[np.searchsorted(ids, wanted, sorter=order)]


def _of_selection(ids: Int64s, logits: Float32s, order: Int64s, selection: ImageSplit) -> Float32s | None:
    wanted = selection.ids.numpy()
    return logits[_places(ids, wanted, order)] if np.isin(wanted, ids).all() else None


def _right(logits_NC: Float32s, split: ImageSplit) -> float:
    return float((logits_NC.argmax(axis=1) == split.labels.numpy()).mean())


def _digest(ids_N: Int64s, logits_NC: Float32s, values: BroughtValues) -> str:
    content = hashlib.sha256(np.ascontiguousarray(ids_N).data)
    content.update(np.ascontiguousarray(logits_NC, dtype="<f4").data)
    kind = {} if values == "logits" else {"values": values}
    return digest_of({"imported logits": content.hexdigest(), **kind})


def _named(ids: Int64s) -> str:
    return ", ".join(str(sample) for sample in ids[:NAMED]) + (", ..." if len(ids) > NAMED else "")
