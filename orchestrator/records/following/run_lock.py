"""Who writes into an output folder: one run at a time; others see that one does without locking anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import filelock

from trainables.errors import StillhouseError

LOCK: Final = ".lock"
_LOCKS: Final = Path("/proc/locks")


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold an output folder: two runs never write into one.

    Raises:
        StillhouseError: another run holds it, or it cannot be written.
    """
    lock = filelock.FileLock(out / LOCK, timeout=0)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout as error:
        raise StillhouseError(f"another run is writing into {out}; wait for it or give --out") from error
    except OSError as error:
        raise StillhouseError(f"cannot write into {out}: {error}; free space there or give --out") from error
    try:  # outside: what a run meets is of its own kind
        yield
    finally:
        lock.release()


def is_held(folder: Path, locks: Path = _LOCKS) -> bool:
    """Whether a run of this machine is writing into it.

    A run on another machine, or in another container, is not seen. To try the lock would be simpler, and a
    run that starts at that moment would be refused.
    """
    try:
        inode = str((folder / LOCK).stat().st_ino)
        held = locks.read_text(encoding="ascii")
    except OSError:  # no run was here yet, or the system does not tell
        return False
    # As in "1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF"; waiting ones have an arrow before the kind.
    lines = (line.split() for line in held.splitlines())
    return any("FLOCK" in words and "->" not in words and _inode(words) == inode for words in lines)


def _inode(words: list[str]) -> str | None:
    places = [word for word in words if word.count(":") == 2]
    return places[0].rpartition(":")[2] if places else None
