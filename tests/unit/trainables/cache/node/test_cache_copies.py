from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock

from tests.unit.full_disk import largest_file
from tests.unit.trainables.cache.tiny_caches import TinyCache
from trainables.cache.node import copies
from trainables.cache.node.copies import NodeScratch, clean_scratch, free_disk_space, node_copies
from trainables.cache.node.reader import open_cache
from trainables.errors import CacheError

DAY_S = 86_400

HOLDER = """
import sys
from pathlib import Path
from trainables.cache.node.copies import NodeScratch
held = NodeScratch(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
"""


def copy_of(root: Path, digit: str, *, n_bytes: int = 1000, days: float = 0) -> Path:
    """A copy that was last opened so many days ago."""
    folder = root / (64 * digit)
    held = NodeScratch(folder)
    (folder / "weak").mkdir()
    (folder / "weak" / "logits.npy").write_bytes(bytes(n_bytes))
    held.leave()
    then = time.time() - days * DAY_S
    for path in (folder / copies.IN_USE, folder / "weak" / "logits.npy"):
        os.utime(path, (then, then))
    return folder


def names(root: Path) -> str:
    return "".join(sorted(path.name[0] for path in root.iterdir()))


def test_copies_are_listed_in_the_order_of_their_last_use_with_their_sizes(tmp_path: Path) -> None:
    copy_of(tmp_path, "a", n_bytes=10, days=2)
    folder = copy_of(tmp_path, "b", n_bytes=20, days=9)
    (tmp_path / "notes").mkdir()  # no copy, so it is none of a cleaner's business
    older, newer = node_copies(tmp_path)
    assert (older.folder, older.manifest, older.bytes, older.in_use) == (str(folder), 64 * "b", 20, False)
    assert (newer.bytes, newer.in_use) == (10, False)
    assert (time.time() - older.used_at) / DAY_S == pytest.approx(9, abs=0.01)


def test_copies_that_were_not_used_for_long_are_removed(tmp_path: Path) -> None:
    for digit, days in (("a", 1), ("b", 20), ("c", 40)):
        copy_of(tmp_path, digit, days=days)
    cleaned = clean_scratch(tmp_path, unused_days=14)
    assert [copy.manifest[0] for copy in cleaned.removed] == ["c", "b"]
    assert [copy.manifest[0] for copy in cleaned.left] == ["a"]
    assert cleaned.freed_bytes == 2000
    assert names(tmp_path) == "a"


def test_the_oldest_are_removed_until_the_rest_fits_into_the_budget(tmp_path: Path) -> None:
    for digit, days in (("a", 3), ("b", 2), ("c", 1)):
        copy_of(tmp_path, digit, days=days)
    clean_scratch(tmp_path, keep_bytes=2500)
    assert names(tmp_path) == "bc"
    clean_scratch(tmp_path, keep_bytes=0)
    assert names(tmp_path) == ""


def test_nothing_is_removed_without_a_bound_or_when_only_asked(tmp_path: Path) -> None:
    copy_of(tmp_path, "a", days=100)
    assert clean_scratch(tmp_path).removed == ()
    assert len(clean_scratch(tmp_path, unused_days=1, dry_run=True).removed) == 1
    assert names(tmp_path) == "a"


def test_a_folder_that_is_not_there_has_no_copies(tmp_path: Path) -> None:
    assert node_copies(tmp_path / "nothing") == ()
    assert clean_scratch(tmp_path / "nothing", keep_bytes=0).removed == ()


def test_a_copy_that_another_process_reads_is_left_alone_until_that_ends(tmp_path: Path) -> None:
    folder = copy_of(tmp_path, "a", days=100)
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert node_copies(tmp_path)[0].in_use
        assert [copy.manifest for copy in clean_scratch(tmp_path, keep_bytes=0).left] == [folder.name]
        process.kill()
    assert [copy.manifest for copy in clean_scratch(tmp_path, keep_bytes=0).removed] == [folder.name]


def test_a_copy_that_is_being_filled_is_left_alone(tmp_path: Path) -> None:
    folder = copy_of(tmp_path, "a", days=100)
    with FileLock(folder / "weak.lock"):
        assert clean_scratch(tmp_path, keep_bytes=0).removed == ()
    assert len(clean_scratch(tmp_path, keep_bytes=0).removed) == 1


def test_what_a_killed_cleaner_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".gone-1" / "weak").mkdir(parents=True)
    clean_scratch(tmp_path)
    assert names(tmp_path) == ""


def test_who_waits_for_a_copy_that_is_taken_away_makes_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_of(tmp_path, "a", days=100)
    opened = threading.Event()
    held: list[NodeScratch] = []
    remove = shutil.rmtree

    def remove_slowly(path: Path, *, ignore_errors: bool) -> None:
        waiting = threading.Thread(target=lambda: held.append(NodeScratch(folder)))
        waiting.start()
        waiting.join(timeout=10)
        opened.set()
        remove(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", remove_slowly)
    assert len(clean_scratch(tmp_path, keep_bytes=0).removed) == 1
    assert opened.is_set()
    assert node_copies(tmp_path)[0].in_use
    assert not (folder / "weak").exists()


def test_room_is_made_by_the_oldest_copies_and_only_where_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for digit, days in (("a", 3), ("b", 2), ("c", 1)):
        copy_of(tmp_path, digit, days=days)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5000))
    free_disk_space(tmp_path, 5000)
    assert names(tmp_path) == "abc"
    free_disk_space(tmp_path, 6500)
    assert names(tmp_path) == "c"


def test_a_reader_keeps_cleaners_away_and_what_they_removed_is_converted_again(tiny: TinyCache) -> None:
    tiny.build()
    manifest = tiny.open().manifest_sha
    folder = tiny.folder / "copies" / manifest
    reader = open_cache(tiny.uri, manifest_sha=manifest, scratch=folder)
    expected = reader.signal("weak", 0, torch.arange(40)).logits_BC
    (copy,) = node_copies(folder.parent)
    assert copy.in_use
    assert copy.bytes > reader.arrays("weak").values["logits"].nbytes
    assert clean_scratch(folder.parent, keep_bytes=0).removed == ()
    del reader
    assert len(clean_scratch(folder.parent, keep_bytes=0).removed) == 1
    again = open_cache(tiny.uri, manifest_sha=manifest, scratch=folder)
    assert torch.equal(again.signal("weak", 0, torch.arange(40)).logits_BC, expected)


def test_a_full_disk_is_an_error_that_names_the_folder(tiny: TinyCache) -> None:
    tiny.build()
    reader = tiny.open()
    with largest_file(600), pytest.raises(CacheError, match=r"cannot keep bank weak .*scratch.*set TMPDIR"):
        reader.arrays("weak")
    assert not (tiny.folder / "scratch" / "weak").exists()
    assert reader.signal("weak", 0, torch.arange(3)).logits_BC.shape == (3, 5)
