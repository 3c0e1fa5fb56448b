"""A feature of a cache as one table of plain columns: vectors, small maps, the classifier's weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from trainables.cache.format.manifest import Manifest
from trainables.cache.format.parquet import array_of
from trainables.cache.format.records import ShardRecord
from trainables.cache.format.storage import Place
from trainables.cache.tools.callbacks import OnStep
from trainables.cache.tools.export_table import plain_table
from trainables.cache.tools.statistics import read_columns
from trainables.config.cache import CLASSIFIER, TEACHER
from trainables.errors import ConfigError

# B = rows, D = numbers in a row of a feature

MAX_COLUMNS: Final = 16_384
CHUNK_NUMBERS: Final = 1 << 22
"""Numbers that are turned into columns at a time."""


def export_feature(
    place: Place,
    manifest: Manifest,
    path: Path,
    feature: str,
    *,
    banks: Sequence[str],
    progress: OnStep = lambda *_: None,
) -> int:
    """Write one row for each (bank, view, sample) of the banks that keep a feature, and return how many.

    Columns: bank, view, sample_id, and `<feature>_<index>` for each number, row-major, in float32. Of
    `classifier`: class, `weight_<index>`, bias, a row for each class. The file appears when it is whole.

    Raises:
        ConfigError: another suffix than .parquet or .csv, no such feature in these banks, or one of too many
            numbers.
        CacheError: a file of the cache is damaged, or `path` cannot be written.
    """
    kept = {bank: names for bank, names in manifest.features.items() if bank in {*banks, TEACHER}}
    own = [bank for bank, names in kept.items() if feature in names]
    if not own:
        known = ", ".join(dict.fromkeys(name for names in kept.values() for name in names))
        raise ConfigError(
            f"--feature: found {feature!r}; allowed: {known or 'none, the cache keeps logits alone'}"
        )
    width = math.prod(manifest.shape_of(feature) or ())
    if width > MAX_COLUMNS:
        raise ConfigError(
            f"--feature: a row of {feature} has {width:,} numbers, and a plain table at most {MAX_COLUMNS:,} "
            f"columns; read the Parquet files below {place.path(f'_{feature}')}, where a row is one list"
        )
    records = [
        record for record in manifest.shards if record.shard.bank in own and record.shard.part == feature
    ]
    total, done = sum(record.shard.rows for record in records), 0
    with plain_table(path, _schema(feature, width)) as write:
        for record in records:
            for table in _plain(place, manifest, record, width):
                write(table)
                done += table.num_rows
                progress(done, total)
    return done


def _schema(feature: str, width: int) -> pa.Schema:
    if feature == CLASSIFIER:
        weights = [(f"weight_{index}", pa.float32()) for index in range(width - 1)]
        return pa.schema([("class", pa.string()), *weights, ("bias", pa.float32())])
    numbers = [(f"{feature}_{index}", pa.float32()) for index in range(width)]
    return pa.schema([("bank", pa.string()), ("view", pa.int32()), ("sample_id", pa.int64()), *numbers])


def _plain(place: Place, manifest: Manifest, record: ShardRecord, width: int) -> Iterator[pa.Table]:
    table, shard = read_columns(place, record), record.shard
    schema = _schema(shard.part, width)
    step = max(1, CHUNK_NUMBERS // width)
    for first in range(0, table.num_rows, step):
        part = table.slice(first, step)
        ids_B, values_BD = array_of(part, "sample_id"), array_of(part, shard.part).astype(np.float32)
        columns: list[Any] = [
            pa.repeat(shard.bank, len(ids_B)),
            pa.repeat(pa.scalar(shard.view, pa.int32()), len(ids_B)),
            pa.array(ids_B),
        ]
        if shard.part == CLASSIFIER:
            columns = [pa.array([manifest.classes[index] for index in ids_B])]
        yield pa.table([*columns, *map(pa.array, values_BD.T)], schema=schema)
