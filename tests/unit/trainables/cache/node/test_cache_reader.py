from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from tests.unit.trainables.cache.tiny_caches import TinyCache
from trainables.cache.format.manifest import DamagedCache, discard_shards
from trainables.cache.node.reader import open_cache
from trainables.config import Precision
from trainables.errors import CacheError
from trainables.teacher.live import LiveTeacher

OPENER = """
import sys, time
from pathlib import Path
from trainables.cache.node.conversion import open_bank
from trainables.cache.format.manifest import read_manifest
from trainables.cache.format.storage import open_place
uri, scratch = sys.argv[1], Path(sys.argv[2])
place = open_place(uri)
manifest, _ = read_manifest(place)
print("ready", flush=True)
sys.stdin.readline()
open_bank(place, manifest, "weak", scratch)
print((scratch / "weak" / "logits.npy").stat().st_ino)
"""


def live_logits(tiny: TinyCache, bank: str, view: int, rows: torch.Tensor) -> torch.Tensor:
    live = LiveTeacher(tiny.teacher, tiny.data, seed=tiny.seed, batch_size=64, device=torch.device("cpu"))
    return live.logits(tiny.views.bank(bank).recipe, view, rows)


@pytest.mark.parametrize(("bank", "view"), [("weak", 0), ("weak", 1), ("strong", 0)])
@pytest.mark.parametrize("precision", list(Precision))
def test_a_signal_is_what_the_teacher_says_about_those_rows(
    tiny: TinyCache, precision: Precision, bank: str, view: int
) -> None:
    kitchen = tiny.but(precision=precision)
    kitchen.build()
    reader = kitchen.open()
    rows = torch.tensor([39, 0, 17, 0])
    signal, live = reader.signal(bank, view, rows), live_logits(tiny, bank, view, rows)
    assert signal.logits_BC.dtype == signal.confidence_B.dtype == torch.float32
    restored = signal.logits_BC
    assert signal.logit_max_B is not None
    torch.testing.assert_close(signal.logit_max_B, live.amax(1), atol=1e-5, rtol=0)
    if precision is not Precision.FP32:
        restored = restored + signal.logit_max_B[:, None]
    assert torch.equal(signal.unshifted().logits_BC, restored)
    if precision is Precision.TOPK:  # two of five classes; the others are known in sum
        top = live.topk(2)
        torch.testing.assert_close(restored.topk(2).values, top.values, atol=2e-3, rtol=0)
        assert torch.equal(restored.topk(2).indices, top.indices)
        restored, live = restored.logsumexp(1), live.logsumexp(1)
    bounds = {Precision.FP32: 1e-5, Precision.INT8: 1e-2}
    torch.testing.assert_close(restored, live, atol=bounds.get(precision, 2e-3), rtol=0)
    torch.testing.assert_close(signal.confidence_B, signal.logits_BC.softmax(1).amax(1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("precision", list(Precision))
def test_a_whole_view_is_a_copy_that_says_what_a_batch_says(tiny: TinyCache, precision: Precision) -> None:
    kitchen = tiny.but(precision=precision)
    kitchen.build()
    reader = kitchen.open()
    whole = reader.whole_view("weak", 1)
    assert whole.logits_BC.shape == (40, 5)
    assert whole.logits_BC.dtype == (torch.float16 if precision is Precision.FP16 else torch.float32)
    assert whole.logit_max_B is not None
    held = (whole.logits_BC, whole.confidence_B, whole.logit_max_B)
    assert reader.view_bytes("weak", 1) == sum(part.nbytes for part in held) == whole.nbytes
    signal = reader.signal("weak", 1, torch.arange(40))
    assert torch.equal(whole.logits_BC.float(), signal.logits_BC)
    assert torch.equal(whole.confidence_B, signal.confidence_B)
    assert signal.logit_max_B is not None
    assert torch.equal(whole.logit_max_B, signal.logit_max_B)
    for part in held:
        part.zero_()
    again = reader.signal("weak", 1, torch.arange(40))
    assert torch.equal(again.logits_BC, signal.logits_BC)


def test_reading_warns_about_nothing(tiny: TinyCache) -> None:
    tiny.build()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reader = tiny.open()
        reader.signal("weak", 0, torch.arange(3))
        reader.whole_view("strong", 0)
        assert torch.equal(reader.ids, tiny.data.train.ids)


@pytest.mark.parametrize("rows", [[-1], [40], [0, 99]])
def test_rows_outside_the_split_are_refused(tiny: TinyCache, rows: list[int]) -> None:
    tiny.build()
    with pytest.raises(CacheError, match=r"the cache has rows 0 to 39"):
        tiny.open().signal("weak", 0, torch.tensor(rows))


@pytest.mark.parametrize("view", [-1, 2])
def test_an_unknown_view_is_refused(tiny: TinyCache, view: int) -> None:
    tiny.build()
    with pytest.raises(CacheError, match=f"views 0 to 1 of bank weak, not {view}"):
        tiny.open().signal("weak", view, torch.arange(3))


def test_an_unknown_bank_is_refused(tiny: TinyCache) -> None:
    tiny.build(("weak",))
    with pytest.raises(CacheError, match=r"no bank 'strong', only weak"):
        tiny.open().whole_view("strong", 0)


def test_a_missing_cache_says_which_stage_makes_it(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"no complete teacher cache at .*run the cache stage"):
        open_cache(str(tmp_path / "nothing"), scratch=tmp_path)


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "flipped":
        data[len(data) // 2] ^= 4
    path.unlink()
    if how != "missing":
        path.write_bytes(data[: 100 if how == "truncated" else None])


@pytest.mark.parametrize(
    ("how", "message"),
    [("flipped", "was altered"), ("truncated", "has 100 bytes instead of"), ("missing", "is missing")],
)
def test_a_damaged_file_is_named_and_rebuilt_alone(tiny: TinyCache, how: str, message: str) -> None:
    tiny.build()
    damage(Path(tiny.uri) / "bank=weak/view=0001/shard-00002.parquet", how)
    with pytest.raises(DamagedCache, match=f"view=0001/shard-00002.parquet {message}") as raised:
        tiny.open().arrays("weak")
    assert not (tiny.folder / "scratch" / "weak").exists()
    discard_shards(tiny.open().place, raised.value.shards)
    assert [shard.file for shard in tiny.build()] == ["bank=weak/view=0001/shard-00002.parquet"]
    tiny.open().arrays("weak")


def test_all_damaged_files_are_found_at_once(tiny: TinyCache) -> None:
    tiny.build()
    for index in (0, 2):
        damage(Path(tiny.uri) / f"bank=weak/view=0000/shard-0000{index}.parquet", "flipped")
    with pytest.raises(DamagedCache, match="2 files") as raised:
        tiny.open().arrays("weak")
    assert [shard.index for shard in raised.value.shards] == [0, 2]


def test_later_opens_do_not_touch_the_cache(tiny: TinyCache) -> None:
    tiny.build()
    first = tiny.open()
    expected = first.signal("weak", 1, torch.arange(40)).logits_BC
    shutil.rmtree(tiny.uri)
    again = open_cache(tiny.uri, manifest_sha=first.manifest_sha, scratch=tiny.folder / "scratch")
    assert torch.equal(again.signal("weak", 1, torch.arange(40)).logits_BC, expected)


def test_a_search_still_opens_the_manifest_that_it_began_with(tiny: TinyCache) -> None:
    tiny.build(("weak",))
    began = tiny.open("before").manifest_sha
    tiny.build(("weak", "strong"))
    reader = open_cache(tiny.uri, manifest_sha=began, scratch=tiny.folder / "after")
    assert (list(reader.banks), reader.manifest_sha) == (["weak"], began)


def test_an_altered_manifest_is_refused(tiny: TinyCache) -> None:
    tiny.build()
    sha = tiny.open("before").manifest_sha
    path = Path(tiny.uri) / "_manifests" / f"{sha}.json"
    path.write_text(path.read_text().replace('"rows": 120', '"rows": 121'))
    with pytest.raises(CacheError, match=r"was altered"):
        open_cache(tiny.uri, manifest_sha=sha, scratch=tiny.folder / "after")


def test_a_copy_that_a_cleaner_thinned_out_is_made_again(tiny: TinyCache) -> None:
    tiny.build()
    tiny.open().arrays("weak")
    (tiny.folder / "scratch" / "weak" / "top1.npy").unlink()
    (tiny.folder / "scratch" / "weak" / "logits.npy").write_bytes(b"short")
    assert tiny.open().signal("weak", 0, torch.arange(40)).logits_BC.shape == (40, 5)


def test_two_processes_that_open_at_once_convert_once(tiny: TinyCache) -> None:
    tiny.build()
    scratch = tiny.folder / "shared"
    command = [sys.executable, "-c", OPENER, tiny.uri, str(scratch)]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    inodes = [process.communicate(timeout=60)[0] for process in processes]
    # A second conversion would have put another file in the place of the first.
    assert inodes[0] == inodes[1] != ""
    assert sorted(path.name for path in scratch.iterdir()) == ["weak", "weak.lock"]
