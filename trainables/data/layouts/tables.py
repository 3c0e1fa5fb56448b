"""Tables with the bytes of images in a column: Parquet files, and what `datasets.save_to_disk` leaves.

A single image cannot be read out of a compressed table, so a node copies the bytes of all, as they are, into
one file of its scratch folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trainables.config.data import DataConfig
from trainables.data.folder_index import logged
from trainables.data.folder_listing import Names
from trainables.data.layouts.columns import IMAGE_NAMES, LABEL_NAMES, chosen_column, label_text
from trainables.data.layouts.recognise import SPLIT_OF
from trainables.data.layouts.remembered import Table, remembered, rows_of
from trainables.data.layouts.rows import Rows
from trainables.errors import DataError
from trainables.foreign_files import foreign_file, in_a_line, in_characters
from trainables.local_files import replacing

BATCH: Final = 256

# N = images


@dataclass(frozen=True)
class _Columns:
    """Which columns hold what, and the classes of numbered labels."""

    image: str
    label: str
    classes: tuple[str, ...] | None


def read_tables(root: Path, files: Sequence[Path], config: DataConfig) -> Rows:
    """The images of these Parquet or Arrow files, in their order.

    Labels are those of the `ClassLabel` that `datasets` notes in the schema, or text, or whole numbers.

    Raises:
        DataError: a file is damaged, lacks a column, or has a row without image or label; it is named.
        StorageError: the node's scratch folder cannot be written.
    """
    options = ["tables", config.image_column, config.label_column]
    table, packed = remembered(
        root, files, options, lambda file: _unpack(root, files, config, file), packs=True
    )
    return rows_of(root, table, (packed,), files)


def saved_parts(root: Path) -> dict[str, tuple[Path, ...]]:
    """By split the Arrow files of a folder of `datasets`; all under `train` where it has no splits.

    Raises:
        DataError: its notes on its files are damaged, or it has no split to train on.
    """
    listed = root / "dataset_dict.json"
    if not listed.is_file():
        return {"train": _arrow_files(root)}
    splits = _json(listed).get("splits")
    if not isinstance(splits, list) or not all(isinstance(name, str) for name in splits):
        raise DataError(f"{in_characters(str(listed))} names no splits; save the data set again")
    parts = {SPLIT_OF[name]: _arrow_files(root / name) for name in splits if name in SPLIT_OF}
    if "train" not in parts:
        raise DataError(
            f"{in_characters(str(root))} has the splits {in_a_line(', '.join(splits))}; one must be `train`"
        )
    return parts


def _arrow_files(folder: Path) -> tuple[Path, ...]:
    state = folder / "state.json"
    files = _json(state).get("_data_files")
    if not isinstance(files, list) or not files or not all(isinstance(file, dict) for file in files):
        raise DataError(f"{in_characters(str(state))} names no data files; save the data set again")
    names = [file.get("filename") for file in files]
    if any(not isinstance(name, str) or Path(name).name != name for name in names):
        raise DataError(
            f"{in_characters(str(state))} names files that lie elsewhere; save the data set again"
        )
    return tuple(folder / str(name) for name in names)


def _json(file: Path) -> dict[str, Any]:
    with foreign_file(lambda why: DataError(f"{in_characters(str(file))} cannot be read: {why}")):
        found = json.loads(file.read_bytes())
    if not isinstance(found, dict):
        raise DataError(f"{in_characters(str(file))} holds no JSON object; save the data set again")
    return found


def _unpack(root: Path, files: Sequence[Path], config: DataConfig, packed: Path) -> Table:
    names: list[str] = []
    labels: list[str] = []
    sizes: list[int] = []
    classes: tuple[str, ...] | None = None
    told = logged(root, "tables")
    with replacing(packed) as beside, beside.open("wb") as opened:
        for number, file in enumerate(files):
            within, columns = file.relative_to(root).as_posix(), _columns(file, config)
            if number and set(columns.classes or ()) != set(classes or ()):
                raise DataError(
                    f"{in_characters(str(file))} has other classes than {in_characters(str(files[0]))}"
                )
            classes = classes if number else columns.classes
            for row, (content, label) in enumerate(_cells(file, columns)):
                names.append(f"{within}#{row}")
                labels.append(label)
                sizes.append(_append(opened, content))
            told(number + 1, len(files))
    if not names:
        raise DataError(f"{in_characters(str(root))}: {len(files)} tables hold no row")
    bytes_N = np.array(sizes, dtype=np.int64)
    first_N = np.cumsum(bytes_N) - bytes_N
    return Table(Names.of(names), Names.of(labels), np.zeros_like(first_N), first_N, bytes_N, classes)


def _append(opened: BinaryIO, content: bytes) -> int:
    opened.write(content)
    return len(content)


def _cells(file: Path, columns: _Columns) -> Iterator[tuple[bytes, str]]:
    """Bytes and label of each row."""
    where, row = in_characters(str(file)), 0
    with foreign_file(lambda why: DataError(f"{where} cannot be read as a table of images: {why}")):
        for batch in _batches(file, [columns.image, columns.label]):
            for image, label in zip(
                batch.column(columns.image).to_pylist(), batch.column(columns.label).to_pylist(), strict=True
            ):
                place = f"{where}, row {row}"
                yield _content(image, place), _label(label, columns, place)
                row += 1


def _batches(file: Path, names: list[str]) -> Iterator[pa.RecordBatch]:
    if file.suffix == ".parquet":
        with pq.ParquetFile(file) as table:
            yield from table.iter_batches(batch_size=BATCH, columns=names)
        return
    with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
        for batch in stream:
            batch.validate(full=True)  # or offsets of a damaged file could lead out of the file's memory
            for first in range(0, batch.num_rows, BATCH):
                yield batch.slice(first, BATCH).select(names)


def _content(cell: object, where: str) -> bytes:
    """Of a cell of bytes, or as `datasets` writes it: {bytes, path}.

    A path without bytes is not followed: it may lead anywhere, and nobody would see that its file changed.
    """
    content, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    if isinstance(content, bytes):
        return content
    told = "" if path is None else f", only the path {in_a_line(repr(path))}"
    raise DataError(f"{where} holds no bytes of an image{told}; write the images into the table (embed them)")


def _label(value: object, columns: _Columns, where: str) -> str:
    if columns.classes is None or isinstance(value, str):
        return label_text(value, f"{where}: `{columns.label}`")
    if not isinstance(value, int) or not 0 <= value < len(columns.classes):
        raise DataError(
            f"{where}: `{columns.label}` is {in_a_line(repr(value))}, and there are {len(columns.classes)} "
            f"classes, 0 to {len(columns.classes) - 1}; take out what has no label, the whole "
            "test part if it was published without (a part val takes its place)"
        )
    return columns.classes[value]


def _columns(file: Path, config: DataConfig) -> _Columns:
    where = in_characters(str(file))
    with foreign_file(lambda why: DataError(f"{where} cannot be read as a table of images: {why}")):
        schema = _schema(file)
        noted = (schema.metadata or {}).get(b"huggingface")
        features = json.loads(noted)["info"]["features"] if noted else {}
        kinds = {name: note.get("_type") for name, note in features.items() if isinstance(note, dict)}
    images = [f.name for f in schema if kinds.get(f.name) == "Image"] or [
        f.name for f in schema if _holds_bytes(f.type)
    ]
    numbered = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    image = images[0] if len(images) == 1 and config.image_column is None else None
    label = numbered[0] if len(numbered) == 1 and config.label_column is None else None
    image = image or chosen_column(images, IMAGE_NAMES, config.image_column, where, "image", "image_column")
    label = label or chosen_column(
        schema.names, LABEL_NAMES, config.label_column, where, "label", "label_column"
    )
    names = features[label].get("names") if label in numbered else None
    return _Columns(image, label, None if names is None else _checked_names(names, f"{where}: `{label}`"))


def _checked_names(names: object, where: str) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{where} has classes that are no texts: {in_a_line(repr(names))}")
    if len(set(names)) < len(names):
        raise DataError(f"{where} has two classes of one name: {in_a_line(repr(names))}")
    return tuple(label_text(name, f"{where}: a class") for name in names)


def _schema(file: Path) -> pa.Schema:
    if file.suffix == ".parquet":
        return pq.read_schema(file)
    with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
        return stream.schema


def _holds_bytes(kind: pa.DataType) -> bool:
    """Whether a column of this type may hold images."""
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
