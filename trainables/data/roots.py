"""The folder that a data set lies in, and how files get there."""

from __future__ import annotations

from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from trainables.config.data import DataConfig
from trainables.errors import DataError
from trainables.local_files import expanded

T = TypeVar("T")


def root_of(config: DataConfig, *, remedy: str) -> Path:
    """The folder `root` of a data set that needs one, with a leading ~ expanded.

    Raises:
        DataError: no root is given, or it is not a folder and nothing may be downloaded into it; the message
            ends with the remedy.
    """
    if config.root is None:
        raise DataError(f"data set {config.name} needs `root`, the folder with its files; {remedy}")
    root = expanded(config.root)
    if not root.is_dir() and not config.download:
        what = "is not a folder" if root.exists() else "does not exist"
        raise DataError(
            f"`root` {root} of data set {config.name} {what} on this machine (seen from {Path.cwd()}); "
            f"{remedy}"
        )
    return root


def downloaded(root: Path, fetch: Callable[[], T], *, by_hand: str) -> T:
    """What `fetch` returns; one process of a node fetches at a time, under a lock file in the folder.

    Raises:
        DataError: the fetch failed; the message names the way by hand.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".download.lock"):
            return fetch()
    except (OSError, RuntimeError, HTTPException) as error:
        reason = " ".join(str(error).split())  # torchvision's own message has several lines
        raise DataError(f"cannot download into {root}: {reason}; {by_hand}") from error
