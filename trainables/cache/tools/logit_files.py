"""Logits in a file that a user brings: NumPy's .npz without pickle, or Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib.npyio import NpzFile

from trainables.cache.format.logit_encoding import Float32s, Int64s
from trainables.cache.tools.brought_values import as_logits
from trainables.config import BroughtValues
from trainables.errors import DataError
from trainables.foreign_files import foreign_file, in_a_line

ID_NAMES: Final = ("ids", "sample_id")
LOGITS: Final = "logits"


def read_logits(path: Path, values: BroughtValues = "logits") -> tuple[Int64s, Float32s]:
    """Sample ids and NxC float32 logits of an .npz or .parquet file, in the order of the file.

    Its numbers may be probabilities too, if `values` says so.

    An .npz file has the arrays `ids` (or `sample_id`) and `logits`. A Parquet file has the same as columns,
    or `logit_0`, `logit_1` and so on, as `cache export` writes them.

    Raises:
        DataError: it cannot be read, lacks one of them, or they are not integers and floats of equal length;
            or the numbers are not the `values` that they are said to be.
    """
    readers = {".npz": _from_npz, ".parquet": _from_parquet}
    if path.suffix not in readers:
        raise DataError(f"{path}: found suffix {path.suffix!r}; allowed: .npz or .parquet")
    with foreign_file(
        lambda why: DataError(f"{path} cannot be read: {why}; nothing that needs pickle is loaded")
    ):
        ids, logits = readers[path.suffix](path)
        _require_numbers(path, ids, logits)
        ids = ids.astype(np.int64, copy=False)
        return ids, as_logits(path, ids, logits, values)


def _require_numbers(path: Path, ids: npt.NDArray[Any], logits: npt.NDArray[Any]) -> None:
    if ids.ndim != 1 or logits.ndim != 2 or len(ids) != len(logits):
        raise DataError(
            f"{path}: ids of shape {ids.shape}, logits of shape {logits.shape}; "
            "allowed: (N,) and (N, classes)"
        )
    if ids.dtype.kind not in "iu" or logits.dtype.kind != "f":
        raise DataError(f"{path}: ids are {ids.dtype}, logits {logits.dtype}; allowed: integers and floats")


def _from_npz(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    file = np.load(path, allow_pickle=False)
    if not isinstance(file, NpzFile):
        raise DataError(f"{path} is one array, .npy, by another name; needed: an archive by numpy.savez")
    with file:
        name = _id_name(path, list(file.files))
        if LOGITS not in file.files:
            raise DataError(f"{path}: has {in_a_line(', '.join(file.files))}; needed: ids and {LOGITS}")
        return file[name], file[LOGITS]


def _from_parquet(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        name = _id_name(path, names)
        numbered = [f"logit_{i}" for i in range(len(names)) if f"logit_{i}" in names]
        columns = [LOGITS] if LOGITS in names else numbered
        if not columns:
            raise DataError(
                f"{path}: has {in_a_line(', '.join(names))}; needed: {LOGITS}, or logit_0, logit_1 and so on"
            )
        if repeated := [column for column in (name, *columns) if names.count(column) > 1]:
            raise DataError(f"{path}: column {repeated[0]} stands in it more than once; leave one")
        table = file.read(columns=[name, *columns])
    ids = table.column(name).to_numpy()
    if columns != [LOGITS]:
        return ids, np.stack([table.column(column).to_numpy() for column in columns], axis=1)
    lists = table.column(LOGITS).combine_chunks()
    if not (pa.types.is_list(lists.type) or pa.types.is_fixed_size_list(lists.type)) or len(lists) == 0:
        raise DataError(f"{path}: column {LOGITS} is {lists.type}; needed: lists of floats")
    flat = lists.flatten().to_numpy(zero_copy_only=False)
    if len(set(lists.value_lengths().to_pylist())) != 1:
        raise DataError(
            f"{path}: column {LOGITS} has rows of different lengths; needed: one number for each class"
        )
    return ids, flat.reshape(len(lists), -1)


def _id_name(path: Path, names: list[str]) -> str:
    found = [name for name in ID_NAMES if name in names]
    if not found:
        raise DataError(
            f"{path}: has {in_a_line(', '.join(names))}; needed: {' or '.join(ID_NAMES)}, and {LOGITS}"
        )
    return found[0]
