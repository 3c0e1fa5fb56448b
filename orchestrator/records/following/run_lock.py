"""Whether a process of this machine holds an output folder; nothing is locked to find out."""

from __future__ import annotations

from pathlib import Path
from typing import Final

LOCK: Final = ".lock"
_LOCKS: Final = Path("/proc/locks")


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
