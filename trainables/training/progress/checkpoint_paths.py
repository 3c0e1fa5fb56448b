"""Where a trial keeps the states that it goes on from, and how they are swept away; needs no torch."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from trainables.local_files import UNFINISHED

LAST: Final = "last.pt"
_LEFT_BY_A_KILLED_WRITER: Final = f".{LAST}.*{UNFINISHED}"
_AND_BY_AN_OLDER_ONE: Final = ".last-*.tmp"


def kept_state(folder: Path, epoch: int) -> Path:
    """Where a trial keeps the state after an epoch for trials that fork off."""
    return folder / f"state-{epoch:06d}.pt"


def drop_states(folder: Path, *, keep_for_forks: bool) -> int:
    """Delete what a trial that will not go on left beside its best weights; the bytes that this frees.

    States for forks stay where trials may still fork off.
    """
    patterns = [LAST, _LEFT_BY_A_KILLED_WRITER, _AND_BY_AN_OLDER_ONE] + (
        [] if keep_for_forks else ["state-*.pt"]
    )
    freed = 0
    for path in [path for pattern in patterns for path in folder.glob(pattern)]:
        with contextlib.suppress(FileNotFoundError):  # another process may sweep the same trial
            found = path.stat()
            path.unlink()
            freed += found.st_size if found.st_nlink == 1 else 0  # a state may have two names
    return freed
