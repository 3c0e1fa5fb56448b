"""Storage that takes no more, told as such: libraries turn it into errors of every kind."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from orchestrator.records.ledger import Ledger
from trainables.errors import StillhouseError

_STORAGE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)
_PROBE_BYTES: Final = 1 << 16
"""A ledger's last page may take a few bytes more on storage that has no page left."""


@contextlib.contextmanager
def storage_told(what: str, ledger: Ledger) -> Iterator[None]:
    """One line instead of what Tune, Ray, MLflow and files that ended too early make of a full disk.

    Raises:
        StillhouseError: an unexpected error came up, and storage takes no more; all other errors pass.
    """
    try:
        yield
    except (StillhouseError, KeyboardInterrupt):
        raise
    except BaseException as error:
        if ledger.trouble is not None:  # Tune passes on the text of an error, not the error
            raise ledger.trouble from error
        reason = _reason_in(error) or refusal_of(ledger.path.parent)
        if reason is None:
            raise
        raise StillhouseError(
            f"{what}: storage takes no more: {reason}; what was there is intact; free space and run again"
        ) from error


def refusal_of(folder: Path) -> str | None:
    """Why a new file in a folder is refused some bytes, or none; it is gone afterwards.

    So an error is known that names no storage: a library that reads back what it could not write whole says
    that the file ended, or nothing.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0" * _PROBE_BYTES)
    except OSError as error:
        return str(error) if error.errno in _STORAGE else None
    return None


def _reason_in(error: BaseException) -> str | None:
    """What an error, or one behind it, says of storage; errors of other processes are known by their text."""
    for each in _chain(error):
        if isinstance(each, OSError) and each.errno in _STORAGE:
            return str(each)
        for number in _STORAGE:
            # Arrow says "[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device".
            if f"[errno {number}] {os.strerror(number)}".lower() in str(each).lower():
                return os.strerror(number)
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = getattr(error, "cause", None) or error.__cause__ or error.__context__
