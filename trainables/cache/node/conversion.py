"""From Parquet to memory-mapped arrays, once per node, with every file verified on the way."""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from filelock import FileLock

from trainables.cache.format.logit_encoding import FEATURE_DTYPES, Array, Int64s, columns_of
from trainables.cache.format.manifest import DamagedCache, Manifest
from trainables.cache.format.parquet import array_of, read_shard, values_of
from trainables.cache.format.records import Shard, ShardRecord
from trainables.cache.format.storage import Place, told
from trainables.cache.node.copies import free_disk_space
from trainables.cache.node.copy_checks import copy_is_sound, write_checks
from trainables.cache.node.npy_file import ArrayFile
from trainables.config.cache import CLASSIFIER, LOGITS, TEACHER
from trainables.errors import CacheError
from trainables.foreign_files import Unreadable, foreign_file
from trainables.local_files import sync

# V = views, N = training samples, K = classes, D = numbers in an embedding

Shapes = Mapping[str, tuple[tuple[int, ...], npt.DTypeLike]]

SCALARS: Final[Mapping[str, tuple[str, npt.DTypeLike]]] = MappingProxyType(
    {
        "confidence": ("teacher_confidence", np.float32),
        "logit_max": ("logit_max", np.float32),
        "top1": ("teacher_top1", np.int32),
        "labels": ("label", np.int32),
        "ids": ("sample_id", np.int64),
    }
)
"""Name of each VxN array, its Parquet column and its dtype."""


@dataclass(frozen=True)
class BankArrays:
    """The arrays of one bank, memory-mapped and read-only: the processes of a node share their pages."""

    values: Mapping[str, Array]
    """VxN or VxNx... of each column that `value_columns` names for the precision of the cache."""
    confidence: Array
    logit_max: Array
    top1: Array
    labels: Array
    ids: Array
    """VxN like the others: each view states the sample ids of its rows itself."""


@dataclass(frozen=True)
class _Copied:
    """The arrays in one folder of the node's copy, and the files that they are made from."""

    bank: str
    part: str
    folder: Path
    root: Path
    """Of all copies: where others may be removed to make room."""
    shapes: Shapes
    columns: Callable[[pa.Table], Mapping[str, Array]]
    """Of a table, the rows of each array."""
    ids_VN: Array | None = None
    """The sample ids that the files have to be of; none for those that state them."""


def open_bank(place: Place, manifest: Manifest, bank: str, scratch: Path) -> BankArrays:
    """The arrays of a bank's logits; the first process on a node converts them while the others wait.

    Raises:
        DamagedCache: files that are missing, cut short or altered, all of them named.
        CacheError: the scratch folder is full or cannot be written.
    """
    size = (manifest.banks[bank].views, manifest.n_rows)
    values = {
        name: (size if column.width is None else (*size, column.width), column.dtype)
        for name, column in columns_of(manifest.identity).items()
    }
    shapes = values | {name: (size, dtype) for name, (_, dtype) in SCALARS.items()}
    arrays = _opened(
        place, manifest, _Copied(bank, LOGITS, scratch / bank, scratch.parent, shapes, _columns_of_logits)
    )
    scalars = {name: arrays.pop(name) for name in SCALARS}
    return BankArrays(values=MappingProxyType(arrays), **scalars)


def open_feature(
    place: Place, manifest: Manifest, bank: str, name: str, scratch: Path, ids_VN: Int64s
) -> Array:
    """A feature of a bank, VxNx..., memory-mapped and converted as logits are, in a folder of its own.

    `ids_VN` are the sample ids of the bank's logits.

    Raises:
        DamagedCache: files that are missing, cut short, altered or of other samples, all of them named.
        CacheError: the scratch folder is full or cannot be written.
    """
    shape = (*ids_VN.shape, *(manifest.shape_of(name) or ()))
    shapes = {name: (shape, FEATURE_DTYPES[manifest.feature_precision])}
    folder = scratch / f"_{name}-{bank}"
    return _opened(
        place,
        manifest,
        _Copied(bank, name, folder, scratch.parent, shapes, lambda table: _rows_of(table, name), ids_VN),
    )[name]


def open_classifier(place: Place, manifest: Manifest, scratch: Path) -> Array:
    """The weights of the teacher's classifier with the bias behind them, Kx(D+1) float32.

    Raises:
        DamagedCache: the file is missing, cut short or altered.
        CacheError: the scratch folder is full or cannot be written.
    """
    n_classes = manifest.identity.n_classes
    shape = (1, n_classes, *(manifest.shape_of(CLASSIFIER) or ()))
    folder = scratch / f"_{CLASSIFIER}-{TEACHER}"
    copied = _Copied(
        TEACHER,
        CLASSIFIER,
        folder,
        scratch.parent,
        {CLASSIFIER: (shape, np.float32)},
        lambda table: _rows_of(table, CLASSIFIER),
        np.arange(n_classes)[None],
    )
    whole: Array = _opened(place, manifest, copied)[CLASSIFIER][0]
    return whole


def _opened(place: Place, manifest: Manifest, copied: _Copied) -> dict[str, Array]:
    folder = copied.folder
    try:
        arrays = _map_sound(copied, may_read_all=False)
        if arrays is None:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):  # the others wait while one reads or converts all
                arrays = _map_sound(copied, may_read_all=True)
                arrays = arrays or _convert(place, manifest, copied)
    except OSError as error:
        what = "bank" if copied.part == LOGITS else f"{copied.part} of bank"
        raise CacheError(
            f"cannot keep {what} {copied.bank} of the teacher cache in {folder}: {error}; free some space "
            "there, or set TMPDIR to a local disk that has it"
        ) from error
    return arrays


def _map_sound(copied: _Copied, *, may_read_all: bool) -> dict[str, Array] | None:
    """The arrays of a finished conversion that still are what was written; none when there is none."""
    return _map(copied) if copy_is_sound(copied.folder, may_read_all=may_read_all) else None


def _map(copied: _Copied) -> dict[str, Array] | None:
    """The arrays of a finished conversion; none when there is none, or a cleaner of old files was at it."""
    arrays: dict[str, Array] = {}
    for name, (shape, dtype) in copied.shapes.items():
        try:
            with foreign_file(Unreadable):
                path = copied.folder / f"{name}.npy"
                # As plain arrays: the class of memory maps makes each gather two to three times as slow.
                array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        except Unreadable:
            return None
        if array.shape != shape or array.dtype != dtype:
            return None
        arrays[name] = array
    return arrays


def _convert(place: Place, manifest: Manifest, copied: _Copied) -> dict[str, Array]:
    """Fill a hidden folder and rename it, so that a folder under its own name is complete."""
    folder = copied.folder
    leftovers = [folder, *folder.parent.glob(f".{folder.name}.*")]  # of a killed process; we hold the lock
    for leftover in leftovers:
        shutil.rmtree(leftover, ignore_errors=True)
    free_disk_space(copied.root, sum(_bytes(shape, dtype) for shape, dtype in copied.shapes.values()))
    hidden = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with ExitStack() as stack:
            files = {
                name: stack.enter_context(ArrayFile(hidden / f"{name}.npy", *shape))
                for name, shape in copied.shapes.items()
            }
            _fill(place, manifest, copied, files)
        write_checks(hidden)
        hidden.rename(folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    converted = _map(copied)
    if converted is None:
        raise CacheError(f"{folder} vanished while it was being written; set TMPDIR to a folder that is kept")
    return converted


def _bytes(shape: tuple[int, ...], dtype: npt.DTypeLike) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _fill(place: Place, manifest: Manifest, copied: _Copied, files: Mapping[str, ArrayFile]) -> None:
    damaged: dict[Shard, str] = {}
    wanted = (copied.bank, copied.part)
    for record in manifest.shards:
        shard = record.shard
        if (shard.bank, shard.part) != wanted:
            continue
        table = _verified(place, record)
        if isinstance(table, str):
            damaged[shard] = table
            continue
        if copied.ids_VN is not None:
            ids = copied.ids_VN[shard.view, shard.first : shard.first + shard.rows]
            if not np.array_equal(array_of(table, "sample_id"), ids):
                damaged[shard] = f"{place.path(record.file)} is of other samples than its logits"
        for name, values in copied.columns(table).items():
            files[name].put(shard.view, shard.first, values)
    if damaged:
        named = "; ".join(list(damaged.values())[:5])
        raise DamagedCache(
            f"{len(damaged)} files of the teacher cache are damaged: {named}; "
            "discard them and run the cache stage, which computes only those again",
            tuple(damaged),
        )


def _columns_of_logits(table: pa.Table) -> dict[str, Array]:
    scalars = {name: array_of(table, column) for name, (column, _) in SCALARS.items()}
    return {**values_of(table), **scalars}


def _rows_of(table: pa.Table, name: str) -> dict[str, Array]:
    return {name: array_of(table, name)}


def _verified(place: Place, record: ShardRecord) -> pa.Table | str:
    """The table of a shard, or what is wrong with its file."""
    path = place.path(record.file)
    try:
        data = place.read(record.file)
    except FileNotFoundError:
        return f"{path} is missing"
    if data.size != record.bytes:
        return f"{path} has {data.size} bytes instead of {record.bytes}"
    if hashlib.sha256(data).hexdigest() != record.sha256:
        return f"{path} was altered (its sha256 is not the recorded one)"
    try:
        with foreign_file(Unreadable, told):
            table = read_shard(data)
    except Unreadable as error:
        return f"{path} cannot be read ({error})"
    found = (table.num_rows, table.column("sample_id")[0].as_py(), table.column("sample_id")[-1].as_py())
    wanted = (record.shard.rows, record.first_id, record.last_id)
    return table if found == wanted else f"{path} holds (rows, first id, last id) {found} instead of {wanted}"
