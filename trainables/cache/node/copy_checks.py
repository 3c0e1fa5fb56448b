"""Checksums of a node's copy of a bank: all are compared after a restart, and a sample otherwise.

The cache's own files have a sha256 each, but what students read are the arrays made from them. A disk or a
restart can damage those while their shapes stay as they were, and wrong answers would be trained on.
"""

from __future__ import annotations

import json
import logging
import random
import zlib
from pathlib import Path
from typing import Final

from pydantic import Field

from trainables.config import Config
from trainables.foreign_files import Unreadable, foreign_file
from trainables.local_files import replace_file

_log = logging.getLogger(__name__)

CHECKS: Final = "checks.json"
BLOCK_BYTES: Final = 1 << 20
SAMPLED: Final = 16
"""Blocks of a bank that are looked at when it is opened again."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class CopyChecks(Config):
    """What the files of a bank's copy were when they were written."""

    boot: str = Field(description="the start of the machine since which all of it was compared")
    crc32: dict[str, tuple[int, ...]] = Field(description="of each block of each file")


def write_checks(folder: Path) -> None:
    """Write down the checksums of a folder's arrays.

    Raises:
        OSError: there is no room.
    """
    crc32 = {path.name: _all_blocks(path) for path in sorted(folder.glob("*.npy"))}
    _keep(folder, CopyChecks(boot=boot_id(), crc32=crc32))


def copy_is_sound(folder: Path, *, may_read_all: bool) -> bool:
    """Whether a folder's arrays are what was written, as far as a sample of their blocks tells.

    After a restart of the machine nothing less than all blocks is believed: without `may_read_all` the
    answer is no, and with it they are compared once.

    Raises:
        OSError: the file of checksums cannot be written.
    """
    if not (folder / CHECKS).exists():  # not converted yet, or thinned out by a cleaner
        return False
    try:
        with foreign_file(Unreadable):
            checks = CopyChecks.from_plain(json.loads((folder / CHECKS).read_bytes()))
            is_restarted = checks.boot != boot_id()
            if is_restarted and not may_read_all:
                return False
            damaged = _damaged(folder, checks, whole=is_restarted)
    except Unreadable as error:
        damaged = str(error)
    if damaged is not None:
        _log.warning("the copy in %s is damaged (%s); it is made again from the cache", folder, damaged)
        return False
    if is_restarted:
        _keep(folder, checks.with_overrides(boot=boot_id()))
    return True


def boot_id() -> str:
    """What tells this start of the machine from others."""
    return _BOOT_ID.read_text().strip()


def _damaged(folder: Path, checks: CopyChecks, *, whole: bool) -> str | None:
    blocks = [(name, number) for name, sums in checks.crc32.items() for number in range(len(sums))]
    if not whole and len(blocks) > SAMPLED:
        blocks = random.SystemRandom().sample(blocks, SAMPLED)
    for name, number in blocks:
        with (folder / name).open("rb") as file:
            file.seek(number * BLOCK_BYTES)
            if zlib.crc32(file.read(BLOCK_BYTES)) != checks.crc32[name][number]:
                return f"block {number} of {name} is not what was written"
    return None


def _all_blocks(path: Path) -> tuple[int, ...]:
    with path.open("rb") as file:
        return tuple(zlib.crc32(block) for block in iter(lambda: file.read(BLOCK_BYTES), b""))


def _keep(folder: Path, checks: CopyChecks) -> None:
    replace_file(folder / CHECKS, checks.model_dump_json().encode())
