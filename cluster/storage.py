"""Where results go: a local path or an address that pyarrow knows (`s3://`, `gs://` ...)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow
from pyarrow import fs

from cluster.errors import ClusterError


def resolve(location: str) -> tuple[fs.FileSystem, str]:
    """The file system of a path or address, and the path in it; relative paths are made absolute.

    Raises:
        ClusterError: no file system is known for the address.
    """
    if "://" not in location:
        return fs.LocalFileSystem(), str(Path(location).expanduser().absolute())
    try:
        filesystem, path = fs.FileSystem.from_uri(location)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise ClusterError(
            f"cannot use {location} for storage: {error}; give a path, or an address such as s3://bucket/folder"
        ) from error
    return filesystem, path


def is_local(location: str) -> bool:
    """Whether a location is a path of this machine, or of a disk that is mounted on it."""
    return "://" not in location or location.startswith("file://")


def free_bytes(location: str) -> int | None:
    """Free space where a location is, or will be; None for storage without such a limit.

    Raises:
        ClusterError: no file system is known for the address.
    """
    if not is_local(location):
        return None
    folder = Path(resolve(location)[1])
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
