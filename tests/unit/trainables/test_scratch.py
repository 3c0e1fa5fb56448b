"""The folder that a node keeps for what it can make again."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path

import pytest

from trainables.cache.scratch import scratch_root
from trainables.errors import CacheError, StorageError
from trainables.scratch import node_scratch


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_is_made_for_this_user_alone() -> None:
    folder = node_scratch()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert node_scratch() == folder
    assert scratch_root() == folder / "cache"


def test_a_link_that_somebody_put_in_its_place_is_refused(temporary: Path) -> None:
    folder = node_scratch()
    folder.rmdir()
    (temporary / "elsewhere").mkdir()
    folder.symlink_to(temporary / "elsewhere")
    with pytest.raises(StorageError, match="belongs to another user; remove it, or set TMPDIR"):
        node_scratch()
    with pytest.raises(CacheError, match="belongs to another user"):
        scratch_root()


def test_a_place_where_nothing_can_be_made_is_named(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (temporary / "file").write_text("")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "file"))
    with pytest.raises(StorageError, match=r"cannot make .*file/stillhouse-.*; set TMPDIR"):
        node_scratch()
