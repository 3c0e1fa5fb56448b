"""A cache as one table of plain columns, for pandas, DuckDB and spreadsheets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from trainables.cache.format.manifest import Manifest
from trainables.cache.format.parquet import logits_of
from trainables.cache.format.records import ShardRecord
from trainables.cache.format.storage import Place
from trainables.cache.tools.callbacks import OnStep
from trainables.cache.tools.statistics import read_columns
from trainables.config import Precision
from trainables.errors import CacheError, ConfigError
from trainables.local_files import replacing

SUFFIXES: Final = (".parquet", ".csv")
CHUNK_NUMBERS: Final = 1 << 22
"""Logits that are turned into columns at a time."""
SCALARS: Final = ("sample_id", "label", "teacher_top1", "teacher_confidence", "teacher_entropy")


def require_suffix(path: Path) -> str:
    """`.parquet` or `.csv`.

    Raises:
        ConfigError: the file ends in something else.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path}: found suffix {path.suffix!r}; allowed: {' or '.join(SUFFIXES)}")
    return path.suffix


def export_plain(
    place: Place,
    manifest: Manifest,
    path: Path,
    *,
    banks: Sequence[str],
    progress: OnStep = lambda *_: None,
) -> int:
    """Write one row for each (bank, view, sample), and return how many.

    Columns: bank, view, sample_id, label, teacher_top1, teacher_confidence, teacher_entropy, and
    `logit_<index>` for each class in float32, with the maximum of the row added back. What precision topk did
    not keep is its even share of the rest. The file appears when it is whole.

    Raises:
        ConfigError: another suffix than .parquet or .csv, or an unknown bank.
        CacheError: a file of the cache is damaged, or `path` cannot be written.
    """
    require_suffix(path)
    unknown = [name for name in banks if name not in manifest.banks]
    if unknown:
        raise ConfigError(f"the cache has no bank {unknown[0]!r}; allowed: {', '.join(manifest.banks)}")
    records = [
        record
        for name in banks
        for view in range(manifest.banks[name].views)
        for record in manifest.shards_of(name, view)
    ]
    total, done = sum(record.shard.rows for record in records), 0
    with plain_table(path, _schema(manifest)) as write:
        for record in records:
            for table in _plain(place, manifest, record):
                write(table)
                done += table.num_rows
                progress(done, total)
    return done


@contextmanager
def plain_table(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Writes tables one behind the other into a Parquet or CSV file, which appears when it is whole.

    Raises:
        ConfigError: another suffix than .parquet or .csv.
        CacheError: `path` cannot be written.
    """
    suffix = require_suffix(path)
    try:
        with replacing(path) as beside, _writer(beside, suffix, schema) as write:
            yield write
    except OSError as error:
        raise CacheError(f"cannot write {path}: {error}; free some space or give another place") from error


def _schema(manifest: Manifest) -> pa.Schema:
    fields = [
        ("bank", pa.string()),
        ("view", pa.int32()),
        ("sample_id", pa.int64()),
        ("label", pa.int32()),
        ("teacher_top1", pa.int32()),
        ("teacher_confidence", pa.float32()),
        ("teacher_entropy", pa.float32()),
    ]
    return pa.schema([*fields, *((f"logit_{index}", pa.float32()) for index in range(len(manifest.classes)))])


def _plain(place: Place, manifest: Manifest, record: ShardRecord) -> Iterator[pa.Table]:
    table = read_columns(place, record)
    step = max(1, CHUNK_NUMBERS // len(manifest.classes))
    for first in range(0, table.num_rows, step):
        part = table.slice(first, step)
        logits_BC = logits_of(part).astype(np.float32)
        if manifest.identity.dtype is not Precision.FP32:
            logits_BC += np.asarray(part.column("logit_max"))[:, None]
        columns: dict[str, Any] = {
            "bank": pa.repeat(record.shard.bank, part.num_rows),
            "view": pa.repeat(pa.scalar(record.shard.view, pa.int32()), part.num_rows),
            **{name: part.column(name).combine_chunks() for name in SCALARS},
            **{f"logit_{index}": pa.array(column_B) for index, column_B in enumerate(logits_BC.T)},
        }
        yield pa.table(columns, schema=_schema(manifest))


@contextmanager
def _writer(path: Path, suffix: str, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    if suffix == ".csv":
        with pa_csv.CSVWriter(path, schema) as writer:
            yield writer.write_table
        return
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        yield writer.write_table
