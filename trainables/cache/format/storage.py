"""A folder on any file system, written file by file so that no reader ever sees half a file."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pyarrow as pa
from filelock import FileLock
from pyarrow import fs

from trainables.config.cache import holds_credentials
from trainables.errors import CacheError
from trainables.local_files import expanded, replace_file

LOCK: Final = "_build.lock"

_HAS_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")
_SECRETS: Final = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")
_REFUSED: Final = (
    "ACCESS_DENIED",
    "INVALID_ACCESS_KEY_ID",
    "SIGNATURE_DOES_NOT_MATCH",
    "TOKEN",
    "UNRECOGNIZED_CLIENT",
)
_CUT: Final = ("NETWORK_CONNECTION", "REQUEST_TIMEOUT", "curlCode")


@dataclass(frozen=True)
class Place:
    """A folder that `pyarrow.fs` reaches; file names are relative and use `/`."""

    uri: str
    """An absolute path, or the URI as it was given."""
    filesystem: Any
    root: str

    @property
    def is_local(self) -> bool:
        """Whether the folder is a path of this machine (a network mount included)."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def path(self, name: str) -> str:
        """Where a file of this folder lies, for messages and for `filesystem`."""
        return f"{self.root}/{name}"

    def read(self, name: str) -> pa.Buffer:
        """The bytes of a file.

        Raises:
            FileNotFoundError: there is no such file.
            CacheError: it cannot be read.
        """
        try:
            with self.filesystem.open_input_file(self.path(name)) as file:
                return file.read_buffer()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise CacheError(f"cannot read {self.path(name)}: {told(error)}") from error

    def write(self, name: str, data: bytes | pa.Buffer) -> None:
        """Write a file whole: it appears complete or not at all, and is on disk on return.

        A local file is written under a hidden name, synced, renamed over the old one, and its folder
        synced. An object store shows an object only when its upload is complete.

        Raises:
            CacheError: it cannot be written.
        """
        try:
            if self.is_local:
                replace_file(Path(self.path(name)), memoryview(data))
            else:
                with self.filesystem.open_output_stream(self.path(name)) as stream:
                    stream.write(data)
        except OSError as error:
            raise CacheError(f"cannot write {self.path(name)}: {told(error)}") from error

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        try:
            self.filesystem.delete_file(self.path(name))
        except FileNotFoundError:
            return
        except OSError as error:
            raise CacheError(f"cannot remove {self.path(name)}: {told(error)}") from error

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Wait for other processes that build here, and keep them out meanwhile; nothing on an object store.

        Raises:
            CacheError: the folder cannot be made or locked.
        """
        if not self.is_local:
            yield
            return
        lock = FileLock(self.path(LOCK))
        try:
            Path(self.root).mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            raise CacheError(f"cannot write {self.uri}: {error}; point cache.uri elsewhere") from error
        try:
            yield
        finally:
            lock.release()

    def free_bytes(self) -> int | None:
        """Bytes that still fit where a local folder is or will be; none where storage has no such limit."""
        if not self.is_local:
            return None
        folder = Path(self.root)
        while not folder.is_dir():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def sizes(self) -> dict[str, int]:
        """Bytes of every file below the folder by relative name; hidden (unfinished) files are left out."""
        selector = fs.FileSelector(self.root, recursive=True, allow_not_found=True)
        try:
            found = self.filesystem.get_file_info(selector)
        except OSError as error:
            raise CacheError(f"cannot list {self.uri}: {told(error)}") from error
        names = {
            str(PurePosixPath(info.path).relative_to(PurePosixPath(self.root))): info
            for info in found
            if info.type == fs.FileType.File
        }
        return {
            name: info.size for name, info in names.items() if not PurePosixPath(name).name.startswith(".")
        }


def open_place(uri: str) -> Place:
    """The folder of a path or a URI such as `s3://bucket/folder`; nothing is created.

    Raises:
        CacheError: the URI names no file system that pyarrow knows, or holds credentials.
    """
    if holds_credentials(uri):  # it would stand in the ledger, in MLflow and in every message
        raise CacheError(
            "the URI of the teacher cache holds credentials; leave them out and give them in "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or in a profile below ~/.aws"
        )
    if not _HAS_SCHEME.match(uri):
        path = str(expanded(uri).absolute())
        return Place(path, fs.LocalFileSystem(), path)
    try:
        filesystem, root = fs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, OSError) as error:
        raise CacheError(
            f"cannot open {uri!r}: {told(error)}; give a path, or a URI such as s3://bucket/folder"
        ) from error
    return Place(uri, filesystem, root.rstrip("/"))


def told(error: Exception) -> str:
    """What a file system says went wrong, without secrets, and what to do where its own words do not tell."""
    text = str(error)
    for name in _SECRETS:
        if value := os.environ.get(name):
            text = text.replace(value, f"<{name}>")
    if "AWS Error" not in text:
        return text
    if any(word in text for word in _REFUSED):
        return (
            f"{text}; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or the profile below ~/.aws), and "
            "that this user may list, read and write there"
        )
    if any(word in text for word in _CUT):
        return f"{text}; finished files are kept: run again when the storage can be reached"
    return text
