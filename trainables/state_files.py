"""Where a trial keeps the states that it goes on from, and how they are swept away; needs no torch."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

LAST: Final = "last.pt"


def kept_state(folder: Path, epoch: int) -> Path:
    """Where a trial keeps the state after an epoch for trials that fork off."""
    return folder / f"state-{epoch:06d}.pt"


def state_beside(folder: Path, unique: str) -> Path:
    """Where a state is written before it takes the place of the last one."""
    return folder / f".last-{unique}.tmp"


def drop_states(folder: Path, *, keep_for_forks: bool) -> int:
    """Delete what a trial that will not go on left beside its best weights; the bytes that this frees.

    States for forks stay where trials may still fork off.
    """
    patterns = [LAST, ".last-*.tmp"] + ([] if keep_for_forks else ["state-*.pt"])
    freed = 0
    for path in [path for pattern in patterns for path in folder.glob(pattern)]:
        with contextlib.suppress(FileNotFoundError):  # another process may sweep the same trial
            found = path.stat()
            path.unlink()
            freed += found.st_size if found.st_nlink == 1 else 0  # a state may have two names
    return freed
