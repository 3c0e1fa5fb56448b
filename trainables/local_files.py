"""Files of this machine: written whole or not at all, and the scratch folder of a node."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from trainables.errors import ConfigError, StillhouseError, StorageError

_SHOWN: Final = 60
UNFINISHED: Final = ".part"
"""How the name of a file ends that is still being written."""


def node_scratch() -> Path:
    """This user's own folder on this node, made when it is not there; TMPDIR says on which disk.

    Raises:
        StorageError: it cannot be made, or belongs to someone else.
    """
    base = Path(tempfile.gettempdir()) / f"stillhouse-{os.getuid()}"
    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        foreign = base.is_symlink() or base.stat().st_uid != os.getuid()
    except OSError as error:
        raise StorageError(f"cannot make {base}: {error}; set TMPDIR to a folder of your own") from error
    if foreign:
        raise StorageError(
            f"{base} belongs to another user; remove it, or set TMPDIR to a folder of your own"
        )
    return base


def expanded(text: str) -> Path:
    """A path with its leading ~ or ~user expanded.

    Raises:
        ConfigError: there is no such user here.
    """
    home = os.environ.get("STILLHOUSE_HOME")  # the user's own, where another took the place of HOME
    if home and (text == "~" or text.startswith("~/")):
        return Path(home + text[1:])
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"path {text[:_SHOWN]!r} begins with a user who has no home folder here; write the folder out"
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write a file that takes the place of `path` at the end of the block, complete and on disk.

    It lies beside its target under a hidden name meanwhile, and is removed when the block fails: a reader
    sees the old content or the new one, never a part. The folder is made where missing.

    Raises:
        OSError: the file cannot be written; what was there is intact.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}{UNFINISHED}")
    try:
        yield beside
        sync(beside)
        beside.replace(path)
    finally:
        with suppress(OSError):  # where the folder itself is the trouble, there is no file
            beside.unlink(missing_ok=True)
    sync(path.parent)


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's content.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_file(path: Path, data: bytes | memoryview) -> None:
    """Write a file whole.

    Raises:
        OSError: the file cannot be written; what was there is intact.
    """
    with replacing(path) as beside:
        beside.write_bytes(data)


def replace_text(path: Path, text: str) -> None:
    """Write a text file whole, as UTF-8.

    Raises:
        StillhouseError: the file cannot be written; what was there is intact.
    """
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise StillhouseError(f"cannot write {path}: {error}; what was there is intact") from error


def sync(path: Path) -> None:
    """Push a file's content, or a folder's entries, to disk, so that they outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
