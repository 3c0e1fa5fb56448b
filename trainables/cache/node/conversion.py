"""From Parquet to memory-mapped arrays, once per node, with every file verified on the way."""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from filelock import FileLock

from trainables.cache.format.logit_encoding import Array, columns_of
from trainables.cache.format.manifest import DamagedCache, Manifest, Part, Shard, ShardRecord
from trainables.cache.format.parquet import array_of, read_shard, values_of
from trainables.cache.format.storage import Place, told
from trainables.cache.node.copies import free_disk_space
from trainables.cache.node.copy_checks import copy_is_sound, write_checks
from trainables.cache.node.npy_file import ArrayFile
from trainables.errors import CacheError
from trainables.foreign_files import Unreadable, foreign_file
from trainables.local_files import sync

# V = views, N = training samples, D = numbers in an embedding

EMBEDDING: Final = "embedding"

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
    embedding: Array | None
    """VxNxD float16; none when the cache keeps no embeddings."""


def open_bank(place: Place, manifest: Manifest, bank: str, scratch: Path) -> BankArrays:
    """The arrays of a bank; the first process on a node converts them while the others wait.

    Raises:
        DamagedCache: files that are missing, cut short or altered, all of them named.
        CacheError: the scratch folder is full or cannot be written.
    """
    folder = scratch / bank
    try:
        arrays = _map_sound(manifest, bank, folder, may_read_all=False)
        if arrays is None:
            scratch.mkdir(parents=True, exist_ok=True)
            with FileLock(scratch / f"{bank}.lock"):  # the others wait while one reads or converts all
                arrays = _map_sound(manifest, bank, folder, may_read_all=True)
                arrays = arrays or _convert(place, manifest, bank, folder)
    except OSError as error:
        raise CacheError(
            f"cannot keep bank {bank} of the teacher cache in {folder}: {error}; free some space there, "
            "or set TMPDIR to a local disk that has it"
        ) from error
    return arrays


def _shapes(manifest: Manifest, bank: str) -> dict[str, tuple[tuple[int, ...], npt.DTypeLike]]:
    size = (manifest.banks[bank].views, manifest.n_rows)
    shapes: dict[str, tuple[tuple[int, ...], npt.DTypeLike]] = {
        name: (size if column.width is None else (*size, column.width), column.dtype)
        for name, column in columns_of(manifest.identity).items()
    }
    if manifest.embedding_width is not None:
        shapes[EMBEDDING] = ((*size, manifest.embedding_width), np.float16)
    return shapes | {name: (size, dtype) for name, (_, dtype) in SCALARS.items()}


def _map_sound(manifest: Manifest, bank: str, folder: Path, *, may_read_all: bool) -> BankArrays | None:
    """The arrays of a finished conversion that still are what was written; none when there is none."""
    return _map(manifest, bank, folder) if copy_is_sound(folder, may_read_all=may_read_all) else None


def _map(manifest: Manifest, bank: str, folder: Path) -> BankArrays | None:
    """The arrays of a finished conversion; none when there is none, or a cleaner of old files was at it."""
    arrays: dict[str, Array] = {}
    for name, (shape, dtype) in _shapes(manifest, bank).items():
        try:
            with foreign_file(Unreadable):
                # As plain arrays: the class of memory maps makes each gather two to three times as slow.
                array = np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
        except Unreadable:
            return None
        if array.shape != shape or array.dtype != dtype:
            return None
        arrays[name] = array
    scalars = {name: arrays.pop(name) for name in SCALARS}
    return BankArrays(embedding=arrays.pop(EMBEDDING, None), values=MappingProxyType(arrays), **scalars)


def _convert(place: Place, manifest: Manifest, bank: str, folder: Path) -> BankArrays:
    """Fill a hidden folder and rename it, so that a folder under its own name is complete."""
    leftovers = [folder, *folder.parent.glob(f".{bank}.*")]  # of a process that was killed; we hold the lock
    for leftover in leftovers:
        shutil.rmtree(leftover, ignore_errors=True)
    shapes = _shapes(manifest, bank)
    free_disk_space(folder.parent.parent, sum(_bytes(shape, dtype) for shape, dtype in shapes.values()))
    hidden = Path(tempfile.mkdtemp(prefix=f".{bank}.", dir=folder.parent))
    try:
        with ExitStack() as stack:
            files = {
                name: stack.enter_context(ArrayFile(hidden / f"{name}.npy", *shape))
                for name, shape in shapes.items()
            }
            _fill(place, manifest, bank, files)
        write_checks(hidden)
        hidden.rename(folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    converted = _map(manifest, bank, folder)
    if converted is None:
        raise CacheError(f"{folder} vanished while it was being written; set TMPDIR to a folder that is kept")
    return converted


def _bytes(shape: tuple[int, ...], dtype: npt.DTypeLike) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _fill(place: Place, manifest: Manifest, bank: str, files: Mapping[str, ArrayFile]) -> None:
    damaged: dict[Shard, str] = {}
    records = [record for record in manifest.shards if record.shard.bank == bank]
    for record in sorted(records, key=lambda record: record.shard.part is Part.EMBEDDING):
        shard = record.shard
        table = _verified(place, record)
        if isinstance(table, str):
            damaged[shard] = table
            continue
        if shard.part is Part.EMBEDDING:
            ids = files["ids"].get(shard.view, shard.first, shard.rows)  # of the logits: embeddings come last
            if not damaged and not np.array_equal(array_of(table, "sample_id"), ids):
                damaged[shard] = f"{place.path(record.file)} is of other samples than its logits"
            files[EMBEDDING].put(shard.view, shard.first, array_of(table, "embedding"))
            continue
        for name, values in values_of(table).items():
            files[name].put(shard.view, shard.first, values)
        for name, (column, _) in SCALARS.items():
            files[name].put(shard.view, shard.first, array_of(table, column))
    if damaged:
        named = "; ".join(list(damaged.values())[:5])
        raise DamagedCache(
            f"{len(damaged)} files of the teacher cache are damaged: {named}; "
            "discard them and run the cache stage, which computes only those again",
            tuple(damaged),
        )


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
