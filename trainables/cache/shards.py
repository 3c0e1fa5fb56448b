"""One shard as a Parquet file: its columns, encodings, metadata and checks."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from trainables.cache.keeping import Int64s, Kept
from trainables.cache.manifest import Shard, ShardRecord, write_record
from trainables.cache.storage import Place

ROW_GROUP_BYTES: Final = 16 * 1024 * 1024
MAX_GROUP_ROWS: Final = 65_536


@dataclass(frozen=True)
class ShardRows:
    """The content of a shard, in the order of the sample ids."""

    ids_B: Int64s
    labels_B: Int64s
    kept: Kept

    @property
    def correct(self) -> int:
        """Rows that the teacher got right."""
        return int((self.kept.top1_B == self.labels_B).sum())


def write_shard(
    place: Place, shard: Shard, rows: ShardRows, *, fingerprint: str, classes: tuple[str, ...]
) -> ShardRecord:
    """Write the Parquet file of a shard, then its commit record.

    Writing the same shard again replaces both, so a build that is repeated doubles nothing.

    Raises:
        CacheError: the folder cannot be written.
    """
    data = encode_shard(shard, rows, fingerprint=fingerprint, classes=classes)
    record = ShardRecord(
        shard=shard,
        file=shard.file,
        first_id=int(rows.ids_B[0]),
        last_id=int(rows.ids_B[-1]),
        bytes=data.size,
        sha256=hashlib.sha256(data).hexdigest(),
        correct=rows.correct,
        fingerprint=fingerprint,
    )
    place.write(shard.file, data)
    write_record(place, shard.commit, record)
    return record


def encode_shard(shard: Shard, rows: ShardRows, *, fingerprint: str, classes: tuple[str, ...]) -> pa.Buffer:
    """The bytes of the Parquet file.

    A dictionary would make reads of lists of float16 23 to 65 times slower, and codecs save next to
    nothing on logits, so both are off. Page checksums are on: Parquet notices no flipped bit without.
    """
    table = _table(shard, rows, fingerprint=fingerprint, classes=classes)
    logits_BC = rows.kept.logits_BC
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        use_dictionary=False,
        compression="none",
        write_statistics=["sample_id"],
        column_encoding={"sample_id": "DELTA_BINARY_PACKED"},
        write_page_checksum=True,
    ) as writer:
        writer.write_table(table, row_group_size=row_group_rows(logits_BC.shape[1], logits_BC.dtype.itemsize))
    return sink.getvalue()


def read_shard(data: pa.Buffer) -> pa.Table:
    """The table in the bytes of a shard.

    Raises:
        OSError, pyarrow.ArrowInvalid: the bytes are no Parquet file, or a page fails its checksum.
    """
    with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
        return file.read()


def logits_of(table: pa.Table) -> npt.NDArray[np.floating[Any]]:
    """The logits of a table as a BxC array in the dtype that the file keeps."""
    column = table.column("logits").combine_chunks()
    return np.asarray(column.flatten()).reshape(len(column), column.type.list_size)


def row_group_rows(n_classes: int, itemsize: int) -> int:
    """Rows of a row group: a power of two, at most 65,536 and at most 16 MiB of logits."""
    fitting = max(ROW_GROUP_BYTES // (n_classes * itemsize), 1)
    return min(1 << (fitting.bit_length() - 1), MAX_GROUP_ROWS)


def _table(shard: Shard, rows: ShardRows, *, fingerprint: str, classes: tuple[str, ...]) -> pa.Table:
    kept = rows.kept
    n_rows, n_classes = kept.logits_BC.shape
    value_type = pa.from_numpy_dtype(kept.logits_BC.dtype)
    list_type = pa.list_(pa.field("element", value_type, nullable=False), n_classes)
    values = pa.array(np.ascontiguousarray(kept.logits_BC).reshape(-1))
    columns = {
        "sample_id": pa.array(rows.ids_B, pa.int64()),
        "logits": pa.FixedSizeListArray.from_arrays(values, type=list_type),
        "logit_max": pa.array(kept.logit_max_B),
        "label": pa.array(rows.labels_B.astype(np.int32)),
        "teacher_top1": pa.array(kept.top1_B),
        "teacher_confidence": pa.array(kept.confidence_B),
        "teacher_entropy": pa.array(kept.entropy_B),
    }
    metadata = {
        "dtype": str(kept.logits_BC.dtype),
        "shape": json.dumps([n_rows, n_classes]),
        "bank": shard.bank,
        "view": str(shard.view),
        "fingerprint": fingerprint,
        "classes": json.dumps(classes),
    }
    fields = [pa.field(name, column.type, nullable=False) for name, column in columns.items()]
    return pa.Table.from_arrays(list(columns.values()), schema=pa.schema(fields, metadata))
