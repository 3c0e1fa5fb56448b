"""The copies of caches in this node's local scratch: who uses them, how large they are, which may go.

A copy is a folder named by its manifest's sha256. Whoever reads it holds a shared lock on a file in it;
whoever fills it, an exclusive one on another. The kernel drops the locks of processes that end in whatever
way, so a copy that nobody has locked is one that nobody uses.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydantic import Field

from trainables.config import Config
from trainables.errors import CacheError, StorageError
from trainables.local_files import node_scratch

IN_USE: Final = "in_use.lock"
DAY_S: Final = 86_400.0
_COPY: Final = re.compile(r"^[0-9a-f]{64}$")
_GONE: Final = ".gone-"


class NodeCopy(Config):
    """The arrays of one manifest on this node."""

    folder: str
    manifest: str = Field(description="sha256 of the manifest whose arrays these are")
    bytes: int
    used_at: float = Field(description="when it was last opened or written; seconds since the epoch")
    in_use: bool = Field(description="whether a process of this node has it open")


class Cleaned(Config):
    """What a cleaning removed (or would remove), and what it left."""

    removed: tuple[NodeCopy, ...]
    left: tuple[NodeCopy, ...]

    @property
    def freed_bytes(self) -> int:
        """Bytes of all that was removed."""
        return sum(copy.bytes for copy in self.removed)


class NodeScratch:
    """A copy's folder, which cleaners leave alone until this object, or the process, comes to its end."""

    def __init__(self, folder: Path) -> None:
        """Make the folder, if it is not there, and lock it.

        Raises:
            CacheError: the folder cannot be made or written.
        """
        self.folder = folder
        try:
            descriptor = _shared_lock(folder)
        except OSError as error:
            raise CacheError(
                f"cannot keep a copy of the teacher cache in {folder}: {error}; set TMPDIR to a local disk "
                "that can be written"
            ) from error
        self.leave = weakref.finalize(self, os.close, descriptor)
        """Lets cleaners in; called again, it does nothing."""


def scratch_root() -> Path:
    """Where this node keeps copies; the folder is the user's alone.

    Raises:
        CacheError: the folder cannot be made, or belongs to someone else.
    """
    try:
        return node_scratch() / "cache"
    except StorageError as error:
        raise CacheError(str(error)) from error


def default_scratch(manifest_sha: str) -> Path:
    """Where this node keeps the arrays of a manifest.

    Raises:
        CacheError: as for `scratch_root`.
    """
    return scratch_root() / manifest_sha


def node_copies(root: Path | None = None) -> tuple[NodeCopy, ...]:
    """The copies below `root` (by default this node's scratch), in the order of their last use."""
    root = scratch_root() if root is None else root
    folders = [path for path in _entries(root) if _COPY.match(path.name) and path.is_dir()]
    return tuple(sorted((_described(folder) for folder in folders), key=lambda copy: copy.used_at))


def clean_scratch(
    root: Path | None = None,
    *,
    unused_days: float | None = None,
    keep_bytes: int | None = None,
    dry_run: bool = False,
) -> Cleaned:
    """Remove copies that nobody uses: those not opened for so many days, and the oldest beyond a byte budget.

    The budget is for all copies, those in use included. Without either bound nothing is removed. The next
    reader of a removed copy converts it again. With `dry_run`, only tells what would be removed.
    """
    root = scratch_root() if root is None else root
    copies, now = node_copies(root), time.time()
    held = sum(copy.bytes for copy in copies)
    removed: list[NodeCopy] = []
    for copy in copies:
        too_old = unused_days is not None and now - copy.used_at > unused_days * DAY_S
        too_much = keep_bytes is not None and held > keep_bytes
        if not (too_old or too_much) or copy.in_use:
            continue
        if dry_run or _remove(Path(copy.folder)):
            removed.append(copy)
            held -= copy.bytes
    if not dry_run:
        for leftover in _entries(root):  # of a cleaner that was killed
            if leftover.name.startswith(_GONE):
                shutil.rmtree(leftover, ignore_errors=True)
    gone = {copy.folder for copy in removed}
    return Cleaned(removed=tuple(removed), left=tuple(copy for copy in copies if copy.folder not in gone))


def free_disk_space(root: Path, wanted_bytes: int) -> None:
    """Remove copies that nobody uses, oldest first, until so many bytes fit on the disk, or none is left."""
    lacking = wanted_bytes - shutil.disk_usage(root).free
    if lacking > 0:
        held = sum(copy.bytes for copy in node_copies(root))
        clean_scratch(root, keep_bytes=max(held - lacking, 0))


def _shared_lock(folder: Path) -> int:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder / IN_USE, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:  # a cleaner was faster
            continue
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if _is_file(descriptor, folder / IN_USE):
            os.utime(descriptor)
            return descriptor
        os.close(descriptor)  # a cleaner took the folder away while we waited for it


def _described(folder: Path) -> NodeCopy:
    sizes, times = [0], [0.0]
    for path in folder.rglob("*"):
        try:
            found = path.stat()
        except FileNotFoundError:  # being converted, or removed
            continue
        if path.is_file():
            sizes.append(found.st_size)
            times.append(found.st_mtime)
    with _alone(folder) as alone:
        return NodeCopy(
            folder=str(folder),
            manifest=folder.name,
            bytes=sum(sizes),
            used_at=max(times),
            in_use=not alone,
        )


def _remove(folder: Path) -> bool:
    """Take a copy away unless somebody uses it.

    Renamed first: whoever waits for a lock in it finds that it is gone, and makes it again.
    """
    with _alone(folder) as alone:
        if not alone:
            return False
        gone = folder.with_name(f"{_GONE}{folder.name}-{secrets.token_hex(4)}")
        try:
            folder.rename(gone)
        except FileNotFoundError:  # another cleaner was faster
            return False
        shutil.rmtree(gone, ignore_errors=True)
        return True


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether nobody else has locked anything in a copy; if so, nobody can until the end."""
    descriptors: list[int] = []
    try:
        yield all(_locked(path, descriptors) for path in folder.glob("*.lock"))
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _locked(path: Path, descriptors: list[int]) -> bool:
    try:
        descriptors.append(os.open(path, os.O_RDWR))
        fcntl.flock(descriptors[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except FileNotFoundError:  # another cleaner was faster
        return True
    return True


def _is_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
