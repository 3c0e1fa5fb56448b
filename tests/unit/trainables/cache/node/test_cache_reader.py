from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from tests.unit.trainables.cache.lab import CacheLab
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


def live_logits(lab: CacheLab, bank: str, view: int, rows: torch.Tensor) -> torch.Tensor:
    live = LiveTeacher(lab.teacher, lab.data, seed=lab.seed, batch_size=64, device=torch.device("cpu"))
    return live.logits(lab.views.bank(bank).recipe, view, rows)


@pytest.mark.parametrize(("bank", "view"), [("weak", 0), ("weak", 1), ("strong", 0)])
@pytest.mark.parametrize("precision", list(Precision))
def test_a_signal_is_what_the_teacher_says_about_those_rows(
    lab: CacheLab, precision: Precision, bank: str, view: int
) -> None:
    kitchen = lab.but(precision=precision)
    kitchen.build()
    reader = kitchen.open()
    rows = torch.tensor([39, 0, 17, 0])
    signal, live = reader.signal(bank, view, rows), live_logits(lab, bank, view, rows)
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
def test_a_whole_view_is_a_copy_that_says_what_a_batch_says(lab: CacheLab, precision: Precision) -> None:
    kitchen = lab.but(precision=precision, embedding=True)
    kitchen.build()
    reader = kitchen.open()
    whole = reader.whole_view("weak", 1)
    assert whole.logits_BC.shape == (40, 5)
    assert whole.logits_BC.dtype == (torch.float16 if precision is Precision.FP16 else torch.float32)
    assert whole.embedding_BD is not None
    assert whole.logit_max_B is not None
    held = (whole.logits_BC, whole.confidence_B, whole.embedding_BD, whole.logit_max_B)
    assert reader.view_bytes("weak", 1) == sum(part.nbytes for part in held) == whole.nbytes
    signal = reader.signal("weak", 1, torch.arange(40))
    assert torch.equal(whole.logits_BC.float(), signal.logits_BC)
    assert torch.equal(whole.confidence_B, signal.confidence_B)
    assert signal.embedding_BD is not None
    assert torch.equal(whole.embedding_BD.float(), signal.embedding_BD)
    assert signal.logit_max_B is not None
    assert torch.equal(whole.logit_max_B, signal.logit_max_B)
    for part in held:
        part.zero_()
    again = reader.signal("weak", 1, torch.arange(40))
    assert torch.equal(again.logits_BC, signal.logits_BC)


def test_reading_warns_about_nothing(lab: CacheLab) -> None:
    lab.build()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reader = lab.open()
        reader.signal("weak", 0, torch.arange(3))
        reader.whole_view("strong", 0)
        assert torch.equal(reader.ids, lab.data.train.ids)


@pytest.mark.parametrize("rows", [[-1], [40], [0, 99]])
def test_rows_outside_the_split_are_refused(lab: CacheLab, rows: list[int]) -> None:
    lab.build()
    with pytest.raises(CacheError, match=r"the cache has rows 0 to 39"):
        lab.open().signal("weak", 0, torch.tensor(rows))


@pytest.mark.parametrize("view", [-1, 2])
def test_an_unknown_view_is_refused(lab: CacheLab, view: int) -> None:
    lab.build()
    with pytest.raises(CacheError, match=f"views 0 to 1 of bank weak, not {view}"):
        lab.open().signal("weak", view, torch.arange(3))


def test_an_unknown_bank_is_refused(lab: CacheLab) -> None:
    lab.build(("weak",))
    with pytest.raises(CacheError, match=r"no bank 'strong', only weak"):
        lab.open().whole_view("strong", 0)


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
def test_a_damaged_file_is_named_and_rebuilt_alone(lab: CacheLab, how: str, message: str) -> None:
    lab.build()
    damage(Path(lab.uri) / "bank=weak/view=0001/shard-00002.parquet", how)
    with pytest.raises(DamagedCache, match=f"view=0001/shard-00002.parquet {message}") as raised:
        lab.open().arrays("weak")
    assert not (lab.folder / "scratch" / "weak").exists()
    discard_shards(lab.open().place, raised.value.shards)
    assert [shard.file for shard in lab.build()] == ["bank=weak/view=0001/shard-00002.parquet"]
    lab.open().arrays("weak")


def test_all_damaged_files_are_found_at_once(lab: CacheLab) -> None:
    lab.build()
    for index in (0, 2):
        damage(Path(lab.uri) / f"bank=weak/view=0000/shard-0000{index}.parquet", "flipped")
    with pytest.raises(DamagedCache, match="2 files") as raised:
        lab.open().arrays("weak")
    assert [shard.index for shard in raised.value.shards] == [0, 2]


def test_later_opens_do_not_touch_the_cache(lab: CacheLab) -> None:
    lab.build()
    first = lab.open()
    expected = first.signal("weak", 1, torch.arange(40)).logits_BC
    shutil.rmtree(lab.uri)
    again = open_cache(lab.uri, manifest_sha=first.manifest_sha, scratch=lab.folder / "scratch")
    assert torch.equal(again.signal("weak", 1, torch.arange(40)).logits_BC, expected)


def test_a_search_still_opens_the_manifest_that_it_began_with(lab: CacheLab) -> None:
    lab.build(("weak",))
    began = lab.open("before").manifest_sha
    lab.build(("weak", "strong"))
    reader = open_cache(lab.uri, manifest_sha=began, scratch=lab.folder / "after")
    assert (list(reader.banks), reader.manifest_sha) == (["weak"], began)


def test_an_altered_manifest_is_refused(lab: CacheLab) -> None:
    lab.build()
    sha = lab.open("before").manifest_sha
    path = Path(lab.uri) / "_manifests" / f"{sha}.json"
    path.write_text(path.read_text().replace('"rows": 120', '"rows": 121'))
    with pytest.raises(CacheError, match=r"was altered"):
        open_cache(lab.uri, manifest_sha=sha, scratch=lab.folder / "after")


def test_a_copy_that_a_cleaner_thinned_out_is_made_again(lab: CacheLab) -> None:
    lab.build()
    lab.open().arrays("weak")
    (lab.folder / "scratch" / "weak" / "top1.npy").unlink()
    (lab.folder / "scratch" / "weak" / "logits.npy").write_bytes(b"short")
    assert lab.open().signal("weak", 0, torch.arange(40)).logits_BC.shape == (40, 5)


def test_two_processes_that_open_at_once_convert_once(lab: CacheLab) -> None:
    lab.build()
    scratch = lab.folder / "shared"
    command = [sys.executable, "-c", OPENER, lab.uri, str(scratch)]
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
