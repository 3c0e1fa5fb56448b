"""The folder that a node keeps for what it can make again, and files that are written whole."""

from __future__ import annotations

import re
import stat
import tempfile
from pathlib import Path

import pytest

from tests.unit.full_disk import largest_file
from trainables.cache.node.copies import scratch_root
from trainables.errors import CacheError, StorageError
from trainables.local_files import node_scratch, replace_file, replace_text, replacing

ROOT = Path(__file__).parents[3]


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


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.json"
    replace_text(path, "first")
    replace_text(path, "second")
    assert path.read_text() == "second"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]


def test_what_was_there_stays_where_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    replace_file(path, b"kept")
    with largest_file(100), pytest.raises(OSError):
        replace_file(path, bytes(1000))
    assert path.read_bytes() == b"kept"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.bin"]


def test_a_block_that_raises_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    replace_file(path, b"kept")
    with pytest.raises(RuntimeError, match="stop"), replacing(path) as beside:
        beside.write_bytes(b"half")
        raise RuntimeError("stop")
    assert path.read_bytes() == b"kept"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.bin"]


def test_content_and_name_are_on_disk_on_return(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed: list[str] = []
    monkeypatch.setattr("trainables.local_files.sync", lambda path: pushed.append(path.name))
    replace_file(tmp_path / "file.bin", b"x")
    assert [name.startswith(".file.bin.") for name in pushed] == [True, False]
    assert pushed[-1] == tmp_path.name


def test_one_module_writes_a_file_beside_its_target() -> None:
    """Ledger and array file sync what they append; every other file is replaced whole, in one place."""
    allowed = {
        "trainables/local_files.py",
        "orchestrator/records/ledger.py",
        "trainables/cache/node/npy_file.py",
    }
    found = {
        str(path.relative_to(ROOT))
        for package in ("orchestrator", "trainables", "search_spaces", "cluster")
        for path in (ROOT / package).rglob("*.py")
        if re.search(
            r"fsync|mkstemp|os\.replace|\.replace\((self\._)?\w*(path|target|file)\)", path.read_text()
        )
    }
    assert found <= allowed
