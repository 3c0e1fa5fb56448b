from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainables.cache.format.logit_encoding import decode, encode_logits
from trainables.cache.format.parquet import (
    ShardRows,
    encode_shard,
    logits_of,
    read_shard,
    row_group_rows,
    write_shard,
)
from trainables.cache.format.records import Shard
from trainables.cache.format.storage import open_place
from trainables.config import Precision

SHARD = Shard(bank="weak", view=3, index=1, first=16, rows=16)
CLASSES = ("ant", "bee", "cat")


def rows_of(precision: Precision = Precision.FP16, n: int = 16) -> ShardRows:
    logits = np.random.default_rng(0).normal(scale=4, size=(n, len(CLASSES))).astype(np.float32)
    ids = 2 * np.arange(n) + 32
    return ShardRows(ids, np.arange(n) % 3, encode_logits(logits, ids, precision, where="here", top_k=2))


def encoded(precision: Precision = Precision.FP16, n: int = 16) -> pa.Buffer:
    return encode_shard(SHARD, rows_of(precision, n), fingerprint="f" * 64, classes=CLASSES)


@pytest.mark.parametrize(
    ("precision", "value"), [(Precision.FP16, pa.float16()), (Precision.FP32, pa.float32())]
)
def test_the_schema_is_the_format(precision: Precision, value: pa.DataType) -> None:
    schema = read_shard(encoded(precision)).schema
    logits = pa.list_(pa.field("element", value, nullable=False), 3)
    assert schema.remove_metadata() == pa.schema(
        [
            pa.field("sample_id", pa.int64(), nullable=False),
            pa.field("logits", logits, nullable=False),
            pa.field("logit_max", pa.float32(), nullable=False),
            pa.field("label", pa.int32(), nullable=False),
            pa.field("teacher_top1", pa.int32(), nullable=False),
            pa.field("teacher_confidence", pa.float32(), nullable=False),
            pa.field("teacher_entropy", pa.float32(), nullable=False),
        ]
    )
    assert not schema.field("logits").type.value_field.nullable


def list_of(value: pa.DataType, width: int) -> pa.DataType:
    return pa.list_(pa.field("element", value, nullable=False), width)


@pytest.mark.parametrize(
    ("precision", "kept", "formula"),
    [
        (
            Precision.INT8,
            {"logits": list_of(pa.int8(), 3), "logit_scale": pa.float32()},
            b"z - max(z) = (logits - 127) * logit_scale",
        ),
        (
            Precision.TOPK,
            {
                "top_logits": list_of(pa.float16(), 2),
                "top_classes": list_of(pa.int32(), 2),
                "residual_logsumexp": pa.float32(),
            },
            b"z - max(z) of top_classes = top_logits; log-sum-exp of z - max(z) over all other classes = "
            b"residual_logsumexp",
        ),
    ],
)
def test_other_precisions_have_columns_of_their_own_and_say_how_to_decode_them(
    precision: Precision, kept: dict[str, pa.DataType], formula: bytes
) -> None:
    schema = read_shard(encoded(precision)).schema
    first = list(schema)[1 : 1 + len(kept)]
    assert [(field.name, field.type, field.nullable) for field in first] == [
        (name, kind, False) for name, kind in kept.items()
    ]
    assert [field.name for field in schema if field not in first] == [
        "sample_id",
        "logit_max",
        "label",
        "teacher_top1",
        "teacher_confidence",
        "teacher_entropy",
    ]
    assert schema.metadata[b"decode"] == formula


@pytest.mark.parametrize("precision", list(Precision))
def test_pandas_gives_arrays_from_which_anyone_can_decode(precision: Precision) -> None:
    rows = rows_of(precision)
    frame = pq.read_table(pa.BufferReader(encoded(precision))).to_pandas()
    expected = decode(rows.encoded.values, len(CLASSES))
    found = np.empty_like(expected)
    for index, row in frame.iterrows():
        match precision:
            case Precision.INT8:
                logits = (row["logits"].astype(np.float32) - 127) * row["logit_scale"]
            case Precision.TOPK:
                logits = np.full(3, row["residual_logsumexp"] - np.log(1), np.float32)
                logits[row["top_classes"]] = row["top_logits"]
            case _:
                logits = row["logits"]
        found[index] = logits
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert np.array_equal(logits_of(read_shard(encoded(precision))), expected)


def test_the_metadata_say_what_the_file_is() -> None:
    metadata = read_shard(encoded()).schema.metadata
    assert {key.decode(): value.decode() for key, value in metadata.items()} == {
        "dtype": "float16",
        "shape": "[16, 3]",
        "bank": "weak",
        "view": "3",
        "fingerprint": "f" * 64,
        "classes": json.dumps(CLASSES),
    }


def test_columns_have_no_dictionary_no_codec_and_statistics_on_the_id_only() -> None:
    group = pq.ParquetFile(pa.BufferReader(encoded())).metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert columns.keys() >= {"sample_id", "logits.list.element", "teacher_confidence"}
    for name, column in columns.items():
        assert column.compression == "UNCOMPRESSED"
        assert not column.has_dictionary_page
        assert ("DELTA_BINARY_PACKED" in column.encodings) == (name == "sample_id")
        assert column.is_stats_set == (name == "sample_id")


def test_values_survive_the_file() -> None:
    rows = rows_of()
    table = read_shard(encoded())
    assert np.array_equal(logits_of(table), rows.encoded.values["logits"])
    assert np.array_equal(table.column("teacher_confidence").to_numpy(), rows.encoded.confidence_B)
    assert np.array_equal(table.column("sample_id").to_numpy(), rows.ids_B)


@pytest.mark.parametrize(
    ("n_classes", "itemsize", "rows"),
    [(10, 2, 65_536), (100, 2, 65_536), (1000, 2, 8_192), (100, 4, 32_768), (10_000_000, 4, 1)],
)
def test_row_groups_hold_at_most_sixteen_megabytes(n_classes: int, itemsize: int, rows: int) -> None:
    assert row_group_rows([np.empty((0, n_classes), f"f{itemsize}")]) == rows


def test_row_groups_are_cut_at_that_size() -> None:
    metadata = pq.ParquetFile(pa.BufferReader(encoded(n=70_000))).metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [65_536, 4_464]


def test_every_flipped_bit_in_the_logits_fails_the_page_checksum() -> None:
    data = encoded()
    column = pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(0).column(1)
    end = column.data_page_offset + column.total_compressed_size
    for bit in range(3 * 2 * 16 * 8):  # the values: three classes of two bytes in sixteen rows
        altered = bytearray(data)
        altered[end - 1 - bit // 8] ^= 1 << bit % 8
        with pytest.raises(OSError, match="CRC checksum verification failed"):
            read_shard(pa.py_buffer(altered))


def test_a_commit_record_describes_the_file(tmp_path: Path) -> None:
    rows = rows_of()
    record = write_shard(open_place(str(tmp_path)), SHARD, rows, fingerprint="f" * 64, classes=CLASSES)
    data = (tmp_path / "bank=weak/view=0003/shard-00001.parquet").read_bytes()
    assert (record.bytes, record.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (record.first_id, record.last_id) == (32, 62)
    assert record.correct == int((rows.encoded.values["logits"].argmax(axis=1) == rows.labels_B).sum())
    written = json.loads((tmp_path / "_commits/weak-0003-00001.json").read_text())
    assert written == record.plain()


def test_writing_a_shard_twice_leaves_one_file_and_no_hidden_ones(tmp_path: Path) -> None:
    place = open_place(str(tmp_path))
    for _ in range(2):
        write_shard(place, SHARD, rows_of(), fingerprint="f" * 64, classes=CLASSES)
    names = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert names == ["shard-00001.parquet", "weak-0003-00001.json"]


def test_pandas_opens_the_whole_folder(tmp_path: Path) -> None:
    place = open_place(str(tmp_path))
    for view in (0, 7):
        shard = Shard(bank="weak", view=view, index=0, first=0, rows=16)
        write_shard(place, shard, rows_of(), fingerprint="f" * 64, classes=CLASSES)
    frame = pd.read_parquet(tmp_path)
    assert len(frame) == 32
    assert set(frame["bank"]) == {"weak"}
    assert set(frame["view"]) == {0, 7}
    assert frame["logits"].iloc[0].dtype == np.float16
    assert (frame["teacher_confidence"] > 1 / 3).all()
