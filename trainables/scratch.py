"""Local scratch: where a node keeps what it can make again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from trainables.errors import StorageError


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
