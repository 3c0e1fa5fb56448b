"""Where in larger files images lie: found once by a node, and remembered in its scratch folder."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from trainables.data.folder_listing import Names
from trainables.data.layouts.rows import Rows, Stretch
from trainables.errors import DataError, StorageError
from trainables.foreign_files import Unreadable, foreign_file, in_characters
from trainables.local_files import node_scratch, replacing

logger = logging.getLogger(__name__)

FORMAT: Final = 1
"""Goes up when the arrays change, or what they mean."""

# N = images


@dataclass(frozen=True)
class Places:
    """Stretches of some files, a row each."""

    files: tuple[Path, ...]
    file_N: NDArray[np.int64]
    first_N: NDArray[np.int64]
    bytes_N: NDArray[np.int64]

    def place(self, row: int) -> Stretch:
        """That of a row."""
        return Stretch(self.files[self.file_N[row]], int(self.first_N[row]), int(self.bytes_N[row]))


@dataclass(frozen=True)
class Table:
    """What was found: of each image its name, its label and its stretch."""

    names: Names
    labels: Names
    file_N: NDArray[np.int64]
    first_N: NDArray[np.int64]
    bytes_N: NDArray[np.int64]
    classes: tuple[str, ...] | None = None


def remembered(
    root: Path,
    files: Sequence[Path],
    options: Sequence[str | None],
    look: Callable[[Path], Table],
    *,
    packs: bool,
) -> tuple[Table, Path]:
    """What `look` found in these files, by this process or an earlier one, while they are still the same.

    With `packs`, `look` writes the images to the file whose path it is given; that is told too. Other
    processes of the node wait meanwhile. `options` are what else the result hangs on.

    Raises:
        DataError: a file is not there.
        StorageError: the scratch folder cannot be written.
    """
    with foreign_file(lambda why: DataError(f"a file of {in_characters(str(root))} cannot be read: {why}")):
        facts = [_facts(root, path) for path in files]
    key = hashlib.sha256(json.dumps([FORMAT, facts, list(options)]).encode()).hexdigest()[:32]
    folder = node_scratch() / "folders"
    table_file, packed = folder / f"{key}-table.npz", folder / f"{key}-images"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{key}.lock"):
            table = _read(table_file)
            if table is None or (packs and not _is_whole(packed, table)):
                table = look(packed)
                _write(table_file, table)
    except OSError as error:
        raise StorageError(
            f"cannot keep what was found of {in_characters(str(root))} in {folder}: {error}; free some space "
            "there, or set TMPDIR to a local disk that has it"
        ) from error
    return table, packed


def _facts(root: Path, path: Path) -> list[str | int]:
    """What makes the result another one; images are named by the path from the root, so that counts too."""
    status = path.stat()
    return [str(path.resolve()), path.relative_to(root).as_posix(), status.st_size, status.st_ctime_ns]


def _is_whole(packed: Path, table: Table) -> bool:
    """False where someone made room in the scratch folder."""
    return packed.is_file() and packed.stat().st_size == int(table.bytes_N.sum())


def rows_of(root: Path, table: Table, files: tuple[Path, ...], sources: Sequence[Path]) -> Rows:
    """The images of a table, whose stretches lie in `files`; `sources` are what the user gave."""
    changed_ns = max(path.stat().st_ctime_ns for path in sources)
    return Rows(
        folder=root,
        names=table.names,
        labels=list(table.labels),
        bytes_N=table.bytes_N,
        changed_ns_N=np.full(len(table.names), changed_ns, dtype=np.int64),
        places=Places(files, table.file_N, table.first_N, table.bytes_N),
        classes=table.classes,
    )


def _read(file: Path) -> Table | None:
    if not file.exists():
        return None
    try:
        with foreign_file(Unreadable):
            with np.load(file, allow_pickle=False) as kept:
                found = {name: kept[name] for name in kept.files}
            return Table(
                names=Names(found["names"].tobytes()),
                labels=Names(found["labels"].tobytes()),
                file_N=found["number"],
                first_N=found["first"],
                bytes_N=found["bytes"],
                classes=tuple(Names(found["classes"].tobytes())) or None,
            )
    except Unreadable as error:
        logger.warning("%s is damaged (%s); looking again", file, error)
        return None


def _write(file: Path, table: Table) -> None:
    with replacing(file) as beside, beside.open("wb") as opened:  # by a path, savez would add a suffix
        np.savez(
            opened,
            names=_array(table.names),
            labels=_array(table.labels),
            classes=_array(Names.of(table.classes or ())),
            number=table.file_N,
            first=table.first_N,
            bytes=table.bytes_N,
        )


def _array(names: Names) -> NDArray[np.uint8]:
    return np.frombuffer(names.block, dtype=np.uint8)
