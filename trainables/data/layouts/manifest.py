"""Manifests: CSV (or tab-separated) with a header, or JSON lines; with path, label and perhaps split."""

from __future__ import annotations

import csv
import io
import json
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from trainables.config.data import DataConfig
from trainables.data.folder_listing import MAX_THREADS, Names
from trainables.data.layouts.columns import IMAGE_NAMES, LABEL_NAMES, chosen_column, label_text
from trainables.data.layouts.recognise import SPLIT_OF
from trainables.data.layouts.rows import Rows
from trainables.errors import DataError
from trainables.foreign_files import foreign_file, in_a_line, in_characters

PATH_NAMES: Final = ("path", "file_name", "filename", "file", "filepath", "file_path", *IMAGE_NAMES)
SPLIT_NAMES: Final = ("split", "subset", "partition")
SEPARATORS: Final = ",;\t"


@dataclass(frozen=True)
class _Line:
    number: int
    path: str
    label: str
    split: str | None


def read_manifest(file: Path, config: DataConfig) -> dict[str, Rows]:
    """Its images by split, under `train`, `val` and `test`; all under `train` where it tells no split.

    Paths start at the manifest's folder. Images are in the order of its lines, and a line for a file
    that is not there is an image that cannot be read.

    Raises:
        DataError: it cannot be read, lacks a column, or a line says what cannot be; the line is named.
    """
    by_split = _by_split(file, config)
    if "train" not in by_split:
        raise DataError(
            f"{in_characters(str(file))}: no line is of the split train; those there are: "
            f"{', '.join(sorted(by_split))}"
        )
    return {split: _rows(file.parent, own) for split, own in by_split.items()}


def read_manifest_of(part: str, file: Path, config: DataConfig) -> Rows:
    """The images of a manifest that is of one part, `train` or `test`, by its name.

    Lines that tell another split are not of that part; a manifest to test may call them `val` too.

    Raises:
        DataError: as for `read_manifest`, or the manifest is to test and has lines to train on.
    """
    by_split = _by_split(file, config, otherwise=part)
    wanted = ("train",) if part == "train" else ("test", "val")
    lines = [line for split in wanted for line in by_split.get(split, ())]
    if not lines or (part != "train" and "train" in by_split):
        raise DataError(
            f"{in_characters(str(file))} is of the part {part} by its name, and its lines tell the splits "
            f"{', '.join(sorted(by_split))}; name the one `manifest` that holds all, or correct the lines"
        )
    return _rows(file.parent, lines)


def _by_split(file: Path, config: DataConfig, *, otherwise: str = "train") -> dict[str, list[_Line]]:
    where = in_characters(str(file))
    with foreign_file(lambda why: DataError(f"{where} cannot be read as a manifest: {why}")):
        text = file.read_bytes().decode("utf-8-sig", "surrogateescape")
        records = list(
            _json_lines(text, where) if file.suffix.lower() in {".jsonl", ".ndjson"} else _csv(text)
        )
    if not records:
        raise DataError(f"{where} holds no line; write path and label of an image in each")
    lines = list(_checked(records, where, config))
    _refuse_contradictions(lines, where)
    by_split: dict[str, list[_Line]] = {}
    for line in lines:
        by_split.setdefault(line.split or otherwise, []).append(line)
    return by_split


def _csv(text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    header = text.partition("\n")[0]
    separator = max(SEPARATORS, key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    for record in reader:
        yield reader.line_num, {(name or "").strip(): value for name, value in record.items()}


def _json_lines(text: str, where: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, _json_object(line, f"{where}, line {number}")


def _json_object(line: str, where: str) -> Mapping[str, Any]:
    with foreign_file(lambda why: DataError(f"{where}: no JSON: {why}")):
        record = json.loads(line)
    if not isinstance(record, dict):
        raise DataError(f"{where}: {in_a_line(line)!r} is no JSON object with path and label")
    return record


def _checked(
    records: Sequence[tuple[int, Mapping[str, Any]]], where: str, config: DataConfig
) -> Iterator[_Line]:
    there = list(records[0][1])
    path_column = chosen_column(there, PATH_NAMES, config.image_column, where, "path", "image_column")
    label_column = chosen_column(there, LABEL_NAMES, config.label_column, where, "label", "label_column")
    split_column = _split_column({name for _, record in records for name in record})
    for number, record in records:
        line = f"{where}, line {number}"
        path = record.get(path_column)
        if not isinstance(path, str) or not path.strip() or "\0" in path:
            raise DataError(f"{line}: `{path_column}` is {in_a_line(repr(path))}; write the path of an image")
        label = label_text(record.get(label_column), f"{line}: `{label_column}`")
        split = (
            None if split_column is None else _split(record.get(split_column), f"{line}: `{split_column}`")
        )
        yield _Line(number, _as_path(path, line), label, split)


def _split_column(names: Iterable[str]) -> str | None:
    """The one that tells splits, in any case, as for path and label."""
    return next((name for usual in SPLIT_NAMES for name in sorted(names) if name.lower() == usual), None)


def _as_path(path: str, line: str) -> str:
    try:
        Names.of([path])
    except UnicodeEncodeError as error:  # JSON can write halves of characters
        raise DataError(f"{line}: {in_a_line(ascii(path))} is the path of no file") from error
    return path


def _split(value: object, where: str) -> str:
    split = SPLIT_OF.get(value.strip().lower()) if isinstance(value, str) else None
    if split is None:
        raise DataError(f"{where} is {in_a_line(repr(value))}; allowed: {', '.join(SPLIT_OF)}")
    return split


def _refuse_contradictions(lines: Sequence[_Line], where: str) -> None:
    seen: dict[str, _Line] = {}
    for line in lines:
        before = seen.setdefault(line.path, line)
        if before.label != line.label:
            raise DataError(
                f"{where}: line {before.number} says {in_characters(before.label)!r} and line {line.number} "
                f"{in_characters(line.label)!r} of {in_characters(line.path)}; an image has one label"
            )


def _rows(folder: Path, lines: Sequence[_Line]) -> Rows:
    names = Names.of([line.path for line in lines])
    with ThreadPoolExecutor(MAX_THREADS) as pool:
        facts_N2 = np.array(list(pool.map(lambda line: _facts(folder / line.path), lines)), dtype=np.int64)
    return Rows(folder, names, [line.label for line in lines], facts_N2[:, 0], facts_N2[:, 1])


def _facts(path: Path) -> tuple[int, int]:
    """Bytes and time of change; zeros for a file that is not there, which is found when it is read."""
    try:
        facts = path.stat()
    except OSError:
        return 0, 0
    if not stat.S_ISREG(facts.st_mode):  # reading a pipe would wait for ever
        raise DataError(f"{in_characters(str(path))} is named by the manifest and is no file; take it out")
    return facts.st_size, facts.st_ctime_ns
