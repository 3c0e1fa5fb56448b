"""One shard as a Parquet file: its columns, encodings, metadata and checks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trainables.cache.format.logit_encoding import Array, EncodedLogits, Floats, Int64s, decode
from trainables.cache.format.manifest import write_record
from trainables.cache.format.records import Shard, ShardRecord
from trainables.cache.format.storage import Place

# B = rows, C = classes, K = classes that top-k keeps, D = numbers in a row of a feature

ROW_GROUP_BYTES: Final = 16 * 1024 * 1024
MAX_GROUP_ROWS: Final = 65_536
VALUE_NAMES: Final = ("logits", "logit_scale", "top_logits", "top_classes", "residual_logsumexp")
"""Columns that may keep logits, over all precisions."""
DECODING: Final[Mapping[str, str]] = MappingProxyType(
    {
        "logit_scale": "z - max(z) = (logits - 127) * logit_scale",
        "top_logits": (
            "z - max(z) of top_classes = top_logits; log-sum-exp of z - max(z) over all other classes = "
            "residual_logsumexp"
        ),
    }
)
"""What the columns mean, by a column that only one precision has; each file carries its text."""


@dataclass(frozen=True)
class ShardRows:
    """The content of a shard, in the order of the sample ids."""

    ids_B: Int64s
    labels_B: Int64s
    encoded: EncodedLogits

    @property
    def correct(self) -> int:
        """Rows that the teacher got right."""
        return int((self.encoded.top1_B == self.labels_B).sum())


def write_shard(
    place: Place, shard: Shard, rows: ShardRows, *, fingerprint: str, classes: tuple[str, ...]
) -> ShardRecord:
    """Write the Parquet file of a shard, then its commit record.

    Writing the same shard again replaces both, so a build that is repeated doubles nothing.

    Raises:
        CacheError: the folder cannot be written.
    """
    data = encode_shard(shard, rows, fingerprint=fingerprint, classes=classes)
    return _commit(place, shard, data, rows.ids_B, {"correct": rows.correct, "fingerprint": fingerprint})


def write_feature(
    place: Place, shard: Shard, ids_B: Int64s, values: Floats, *, fingerprint: str
) -> ShardRecord:
    """Write the file of a feature (B x ..., in the dtype that is kept) of a shard, then its commit record.

    A row is one list, row-major; the shape stands in the metadata and in the record. The column bears the
    name of the feature.

    Raises:
        CacheError: the folder cannot be written.
    """
    flat_BD = values.reshape(len(values), -1)
    table = _as_table(
        {"sample_id": pa.array(ids_B, pa.int64()), shard.part: _column(flat_BD)},
        {
            "dtype": str(values.dtype),
            "shape": json.dumps(values.shape),
            "bank": shard.bank,
            "view": str(shard.view),
            "fingerprint": fingerprint,
        },
    )
    facts = {"correct": 0, "fingerprint": fingerprint, "shape": values.shape[1:]}
    return _commit(place, shard, _encode(table, row_group_rows([flat_BD])), ids_B, facts)


def _commit(
    place: Place, shard: Shard, data: pa.Buffer, ids_B: Int64s, facts: Mapping[str, Any]
) -> ShardRecord:
    record = ShardRecord(
        shard=shard,
        file=shard.file,
        first_id=int(ids_B[0]),
        last_id=int(ids_B[-1]),
        bytes=data.size,
        sha256=hashlib.sha256(data).hexdigest(),
        **facts,
    )
    place.write(shard.file, data)
    write_record(place, shard.commit, record)
    return record


def encode_shard(shard: Shard, rows: ShardRows, *, fingerprint: str, classes: tuple[str, ...]) -> pa.Buffer:
    """The bytes of the Parquet file."""
    table = _table(shard, rows, fingerprint=fingerprint, classes=classes)
    return _encode(table, row_group_rows(rows.encoded.values.values()))


def _encode(table: pa.Table, group_rows: int) -> pa.Buffer:
    """The bytes of a Parquet file.

    A dictionary would make reads of lists of float16 23 to 65 times slower, and codecs save next to
    nothing on logits, so both are off. Page checksums are on: Parquet notices no flipped bit without.
    """
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
        writer.write_table(table, row_group_size=group_rows)
    return sink.getvalue()


def read_shard(data: pa.Buffer) -> pa.Table:
    """The table in the bytes of a shard.

    Raises:
        Exception: of many kinds, where the bytes are no Parquet file, or a page fails its checksum.
    """
    with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
        return file.read()


def logits_of(table: pa.Table) -> Floats:
    """The logits of a table, BxC: in the dtype that is kept, or float32 decoded from int8 or top-k."""
    values = values_of(table)
    if values.keys() == {"logits"}:
        return values["logits"]
    return decode(values, json.loads(table.schema.metadata[b"shape"])[1])


def values_of(table: pa.Table) -> dict[str, Array]:
    """What a table keeps of logits, by column: lists of numbers as BxC or BxK, scalars as B."""
    return {name: array_of(table, name) for name in VALUE_NAMES if name in table.column_names}


def array_of(table: pa.Table, name: str) -> Array:
    """One column as an array, without a copy where it is one chunk."""
    column = table.column(name).combine_chunks()
    if pa.types.is_fixed_size_list(column.type):
        return np.asarray(column.flatten()).reshape(len(column), column.type.list_size)
    return np.asarray(column)


def row_group_rows(arrays: Iterable[Array]) -> int:
    """Rows of a row group: a power of two, at most 65,536 and at most 16 MiB of these values by row."""
    row_bytes = sum(array.itemsize * (array.shape[1] if array.ndim > 1 else 1) for array in arrays)
    fitting = max(ROW_GROUP_BYTES // row_bytes, 1)
    return min(1 << (fitting.bit_length() - 1), MAX_GROUP_ROWS)


def _table(shard: Shard, rows: ShardRows, *, fingerprint: str, classes: tuple[str, ...]) -> pa.Table:
    encoded = rows.encoded
    values = encoded.values
    columns = {
        "sample_id": pa.array(rows.ids_B, pa.int64()),
        **{name: _column(array) for name, array in values.items()},
        "logit_max": pa.array(encoded.logit_max_B),
        "label": pa.array(rows.labels_B.astype(np.int32)),
        "teacher_top1": pa.array(encoded.top1_B),
        "teacher_confidence": pa.array(encoded.confidence_B),
        "teacher_entropy": pa.array(encoded.entropy_B),
    }
    metadata = {
        "dtype": str(next(iter(values.values())).dtype),
        "shape": json.dumps([len(rows.ids_B), len(classes)]),
        "bank": shard.bank,
        "view": str(shard.view),
        "fingerprint": fingerprint,
        "classes": json.dumps(classes),
    }
    formula = next((text for name, text in DECODING.items() if name in values), None)
    return _as_table(columns, metadata if formula is None else {**metadata, "decode": formula})


def _column(array: Array) -> pa.Array:
    """Scalars, or lists of a fixed size; pandas, DuckDB and Polars open the latter as arrays."""
    if array.ndim == 1:
        return pa.array(array)
    element = pa.field("element", pa.from_numpy_dtype(array.dtype), nullable=False)
    values = pa.array(np.ascontiguousarray(array).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(values, type=pa.list_(element, array.shape[1]))


def _as_table(columns: Mapping[str, pa.Array], metadata: Mapping[str, str]) -> pa.Table:
    fields = [pa.field(name, column.type, nullable=False) for name, column in columns.items()]
    return pa.Table.from_arrays(list(columns.values()), schema=pa.schema(fields, dict(metadata)))
