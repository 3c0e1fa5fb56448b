"""Whether a run holds a folder is read off the system's list of locks."""

from __future__ import annotations

from pathlib import Path

import filelock

from orchestrator.records.following.run_lock import LOCK, is_held


def test_a_folder_is_held_while_its_lock_is(tmp_path: Path) -> None:
    lock = filelock.FileLock(tmp_path / LOCK)
    assert not is_held(tmp_path)
    with lock:
        assert is_held(tmp_path)
    assert not is_held(tmp_path)


def test_whoever_waits_for_a_lock_does_not_hold_it(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    inode = (tmp_path / LOCK).stat().st_ino
    locks = tmp_path / "locks"
    locks.write_text(f"1: -> FLOCK  ADVISORY  WRITE 7 08:01:{inode} 0 EOF\n", encoding="ascii")
    assert not is_held(tmp_path, locks)
    locks.write_text(f"1: FLOCK  ADVISORY  WRITE 7 08:01:{inode} 0 EOF\n", encoding="ascii")
    assert is_held(tmp_path, locks)


def test_where_the_system_tells_no_locks_none_is_seen(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    assert not is_held(tmp_path, tmp_path / "nothing")
