"""A node's copy of a cache that a disk or a restart damaged is made again; a sound one costs little."""

from __future__ import annotations

import logging
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.trainables.cache.tiny_caches import TinyCache
from trainables.cache.node import copy_checks
from trainables.cache.node.copy_checks import CHECKS, copy_is_sound, write_checks

ROWS = torch.arange(40)


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def restart(monkeypatch: pytest.MonkeyPatch, number: int = 2) -> None:
    monkeypatch.setattr(copy_checks, "boot_id", lambda: f"start {number}")


def array_of_blocks(folder: Path, count: int) -> Path:
    path = folder / "logits.npy"
    path.write_bytes(np.arange(count * copy_checks.BLOCK_BYTES // 8).tobytes())
    write_checks(folder)
    return path


def test_a_flipped_bit_in_a_copy_is_made_good_when_it_is_opened(
    tiny: TinyCache, caplog: pytest.LogCaptureFixture
) -> None:
    tiny.build()
    good = tiny.open().signal("weak", 1, ROWS).logits_BC
    for path in sorted((tiny.folder / "scratch" / "weak").glob("*.npy")):
        flip(path, path.stat().st_size - 3)
        with caplog.at_level(logging.WARNING):
            again = tiny.open().signal("weak", 1, ROWS).logits_BC
        assert f"of {path.name} is not what was written); it is made again" in caplog.text
        assert torch.equal(again, good)


def test_all_of_a_copy_is_read_once_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy_checks, "BLOCK_BYTES", 64)
    path = array_of_blocks(tmp_path, 500)
    restart(monkeypatch)
    assert not copy_is_sound(tmp_path, may_read_all=False)
    assert copy_is_sound(tmp_path, may_read_all=True)
    assert copy_is_sound(tmp_path, may_read_all=False)
    flip(path, 64 * 321)
    restart(monkeypatch, 3)
    assert not copy_is_sound(tmp_path, may_read_all=True)


def test_without_a_restart_a_few_blocks_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy_checks, "BLOCK_BYTES", 64)
    array_of_blocks(tmp_path, 500)
    read: list[bytes] = []
    crc32 = zlib.crc32

    def noted(block: bytes) -> int:
        read.append(block)
        return crc32(block)

    monkeypatch.setattr(zlib, "crc32", noted)
    assert copy_is_sound(tmp_path, may_read_all=False)
    assert len(set(read)) == len(read) == copy_checks.SAMPLED


@pytest.mark.parametrize("damage", ["gone", "cut", "no JSON", "array gone"])
def test_a_copy_without_its_checksums_or_arrays_is_not_believed(tmp_path: Path, damage: str) -> None:
    path = array_of_blocks(tmp_path, 1)
    match damage:
        case "gone":
            (tmp_path / CHECKS).unlink()
        case "cut":
            path.write_bytes(path.read_bytes()[:-8])
        case "no JSON":
            (tmp_path / CHECKS).write_bytes(b"{")
        case _:
            path.unlink()
    assert not copy_is_sound(tmp_path, may_read_all=True)
