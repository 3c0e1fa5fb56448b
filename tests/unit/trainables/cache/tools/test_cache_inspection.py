from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.unit.trainables.cache.tiny_caches import EMBEDDED, TinyCache, random_data, tiny_teacher
from trainables.cache.format.manifest import MANIFEST, ORIGIN, kept_manifest, read_manifest
from trainables.cache.format.storage import open_place
from trainables.cache.tools.inspection import Fault, Inspection, inspect_cache
from trainables.cache.tools.repair import publish_again, withdraw
from trainables.data.splits import split_facts
from trainables.errors import CacheError

FILE = "bank=weak/view=0001/shard-00002.parquet"
COMMIT = "_commits/weak-0001-00002.json"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> TinyCache:
    """A cache that is sound; its files are synced one by one, which takes its time."""
    data = random_data()
    tiny = TinyCache(tmp_path_factory.mktemp("built"), data, tiny_teacher(), split_facts(data))
    tiny.build()
    return tiny


@pytest.fixture
def tiny(built: TinyCache, tmp_path: Path) -> TinyCache:
    """A copy of that cache, to be damaged."""
    shutil.copytree(built.uri, tmp_path / "cache")
    return built.but(folder=tmp_path)


def inspect(tiny: TinyCache, *, deep: bool = False) -> Inspection:
    return inspect_cache(open_place(tiny.uri), deep=deep)


def faults(tiny: TinyCache, *, deep: bool = False) -> list[tuple[Fault, str]]:
    return [(finding.fault, finding.file) for finding in inspect(tiny, deep=deep).findings]


def mended(tiny: TinyCache, *, deep: bool = False) -> list[str]:
    """Repair, and give the files that were computed again; nothing may be left to find."""
    withdraw(open_place(tiny.uri), inspect(tiny, deep=deep))
    computed = [shard.file for shard in tiny.build()]
    assert faults(tiny, deep=True) == []
    return computed


def path_of(tiny: TinyCache, name: str) -> Path:
    return Path(tiny.uri) / name


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_cache_has_no_findings(tiny: TinyCache, deep: bool) -> None:
    seen: list[tuple[int, int]] = []
    found = inspect_cache(open_place(tiny.uri), deep=deep, progress=lambda *step: seen.append(step))
    assert (found.findings, found.files, seen[-1]) == ((), 9, (9, 9))


def test_a_flipped_bit_is_found_by_a_deep_look_and_its_file_rebuilt_alone(tiny: TinyCache) -> None:
    data = bytearray(path_of(tiny, FILE).read_bytes())
    data[60] ^= 4
    path_of(tiny, FILE).write_bytes(data)
    assert faults(tiny) == []
    assert faults(tiny, deep=True) == [(Fault.ALTERED, FILE)]
    assert mended(tiny, deep=True) == [FILE]


def test_a_truncated_file_is_named_with_its_sizes_and_rebuilt_alone(tiny: TinyCache) -> None:
    whole = path_of(tiny, FILE).stat().st_size
    path_of(tiny, FILE).write_bytes(path_of(tiny, FILE).read_bytes()[:100])
    (finding,) = inspect(tiny).findings
    assert finding.sentence() == f"wrong size: {FILE}: has 100 bytes instead of {whole}"
    assert mended(tiny) == [FILE]


def test_a_missing_file_is_named_and_rebuilt_alone(tiny: TinyCache) -> None:
    path_of(tiny, FILE).unlink()
    assert faults(tiny) == [(Fault.MISSING, FILE)]
    assert mended(tiny) == [FILE]


def test_a_damaged_file_of_embeddings_is_rebuilt_without_the_logits(tiny: TinyCache) -> None:
    kitchen = tiny.but(features=EMBEDDED, at=f"{tiny.uri}-with-embeddings")
    kitchen.build(("weak",))
    assert faults(kitchen, deep=True) == []
    file = "_embedding/bank=weak/view=0001/shard-00001.parquet"
    path_of(kitchen, file).write_bytes(b"PAR1")
    assert faults(kitchen) == [(Fault.TRUNCATED, file)]
    withdraw(open_place(kitchen.uri), inspect(kitchen))
    assert [shard.file for shard in kitchen.build(("weak",))] == [file]
    assert faults(kitchen, deep=True) == []


def test_a_missing_commit_record_is_named_and_its_file_rebuilt_alone(tiny: TinyCache) -> None:
    path_of(tiny, COMMIT).unlink()
    assert faults(tiny) == [(Fault.UNCOMMITTED, COMMIT)]
    assert mended(tiny) == [FILE]


@pytest.mark.parametrize("text", ["{", '{"shard": 1}'])
def test_a_commit_record_that_cannot_be_read_is_one_more_damage(tiny: TinyCache, text: str) -> None:
    path_of(tiny, COMMIT).write_text(text)
    assert faults(tiny) == [(Fault.UNCOMMITTED, COMMIT)]
    assert mended(tiny) == [FILE]


def test_the_file_of_another_view_in_its_place_is_found(tiny: TinyCache) -> None:
    for kind, name in (
        ("bank=weak/view=0000/shard-00002.parquet", FILE),
        ("_commits/weak-0000-00002.json", COMMIT),
    ):
        shutil.copy(path_of(tiny, kind), path_of(tiny, name))
    assert faults(tiny) == [(Fault.UNCOMMITTED, COMMIT)]
    assert mended(tiny) == [FILE]


def test_a_file_with_another_number_of_rows_is_found_without_reading_it(tiny: TinyCache) -> None:
    other = path_of(tiny, "bank=weak/view=0001/shard-00001.parquet").read_bytes()  # 16 rows instead of 8
    path_of(tiny, FILE).write_bytes(other)
    record = json.loads(path_of(tiny, COMMIT).read_text())
    path_of(tiny, COMMIT).write_text(json.dumps({**record, "bytes": len(other)}))
    (finding,) = inspect(tiny).findings
    assert (finding.fault, finding.detail) == (Fault.ALTERED, "has 16 rows instead of 8")


def test_a_stale_manifest_is_found_and_written_again_without_computing_anything(tiny: TinyCache) -> None:
    record = json.loads(path_of(tiny, COMMIT).read_text())
    path_of(tiny, COMMIT).write_text(json.dumps({**record, "correct": record["correct"] + 1}))
    found = inspect(tiny)
    assert [(f.fault, f.file, FILE in f.detail) for f in found.findings] == [(Fault.STALE, MANIFEST, True)]
    assert found.is_stale
    publish_again(open_place(tiny.uri), found)
    assert faults(tiny, deep=True) == []
    manifest, _ = read_manifest(open_place(tiny.uri))
    assert [r.correct for r in manifest.shards if r.file == FILE] == [record["correct"] + 1]


def test_a_manifest_that_cannot_be_read_is_written_again_by_a_build(tiny: TinyCache) -> None:
    path_of(tiny, MANIFEST).write_text('{"rows": 1')
    assert faults(tiny) == [(Fault.STALE, MANIFEST)]
    with pytest.raises(CacheError, match=r"give the experiment instead of the place"):
        publish_again(open_place(tiny.uri), inspect(tiny))
    assert mended(tiny) == []


@pytest.mark.parametrize("damage", ["gone", "unreadable"])
def test_a_lost_identity_is_restored_from_the_manifest(tiny: TinyCache, damage: str) -> None:
    before = path_of(tiny, ORIGIN).read_bytes()
    path_of(tiny, ORIGIN).unlink() if damage == "gone" else path_of(tiny, ORIGIN).write_text("{")
    assert faults(tiny) == [(Fault.STALE, ORIGIN)]
    publish_again(open_place(tiny.uri), inspect(tiny))
    assert faults(tiny, deep=True) == []
    assert path_of(tiny, ORIGIN).read_bytes() == before


def test_the_manifest_that_running_searches_need_is_restored(tiny: TinyCache) -> None:
    sha = read_manifest(open_place(tiny.uri))[1]
    path_of(tiny, kept_manifest(sha)).unlink()
    assert faults(tiny) == [(Fault.STALE, kept_manifest(sha))]
    assert publish_again(open_place(tiny.uri), inspect(tiny)) == sha
    assert faults(tiny) == []


def test_a_foreign_file_is_named_and_left_alone(tiny: TinyCache) -> None:
    stray = "bank=weak/view=0001/shard-00009.parquet"
    shutil.copy(path_of(tiny, FILE), path_of(tiny, stray))
    path_of(tiny, "notes.txt").write_text("mine")
    assert faults(tiny) == [(Fault.FOREIGN, stray), (Fault.FOREIGN, "notes.txt")]
    withdraw(open_place(tiny.uri), inspect(tiny))
    assert tiny.build() == []
    assert path_of(tiny, "notes.txt").read_text() == "mine"


def test_views_that_a_build_has_not_published_yet_are_no_findings(tiny: TinyCache) -> None:
    more = tiny.views.with_overrides(weak=tiny.views.weak.with_overrides(views=4))
    tiny.but(views=more).build(stop_after=4)
    assert faults(tiny, deep=True) == []
    assert len(tiny.but(views=more).build()) == 2


def test_everything_that_is_wrong_is_found_at_once(tiny: TinyCache) -> None:
    path_of(tiny, FILE).unlink()
    path_of(tiny, "_commits/strong-0000-00001.json").unlink()
    path_of(tiny, "stray.parquet").write_bytes(b"")
    assert {fault for fault, _ in faults(tiny)} == {Fault.MISSING, Fault.UNCOMMITTED, Fault.FOREIGN}
    withdraw(open_place(tiny.uri), inspect(tiny))
    assert {shard.bank for shard in tiny.build()} == {"weak", "strong"}


def test_damage_without_the_teacher_is_not_repaired(tiny: TinyCache) -> None:
    path_of(tiny, FILE).unlink()
    with pytest.raises(
        CacheError, match=r"only be repaired with the teacher .*cache verify EXPERIMENT --repair"
    ):
        publish_again(open_place(tiny.uri), inspect(tiny))


def test_a_folder_without_a_cache_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"no teacher cache at .*give another place"):
        inspect_cache(open_place(str(tmp_path)))


def test_a_foreign_parquet_file_would_have_been_read_by_pandas(tiny: TinyCache) -> None:
    rows = len(pd.read_parquet(tiny.uri))
    shutil.copy(path_of(tiny, FILE), path_of(tiny, "bank=weak/view=0001/copy.parquet"))
    assert len(pd.read_parquet(tiny.uri)) == rows + 8
    assert [fault for fault, _ in faults(tiny)] == [Fault.FOREIGN]


def test_a_flipped_bit_in_a_kept_manifest_is_found_and_mended(tiny: TinyCache) -> None:
    first = read_manifest(open_place(tiny.uri))[1]
    more = tiny.views.with_overrides(weak=tiny.views.weak.with_overrides(views=3))
    tiny = tiny.but(views=more)
    tiny.build()
    last = read_manifest(open_place(tiny.uri))[1]
    for sha in (first, last):
        path = path_of(tiny, kept_manifest(sha))
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    kept = sorted([kept_manifest(first), kept_manifest(last)])
    assert faults(tiny, deep=True) == [(Fault.STALE, name) for name in kept]
    assert publish_again(open_place(tiny.uri), inspect(tiny, deep=True)) == last
    assert faults(tiny, deep=True) == []
    assert path_of(tiny, kept_manifest(last)).read_bytes() == path_of(tiny, MANIFEST).read_bytes()


def test_every_flip_in_a_record_is_found_by_a_deep_look(tiny: TinyCache) -> None:
    drawn = random.Random(5)
    names = [MANIFEST, kept_manifest(read_manifest(open_place(tiny.uri))[1]), COMMIT, FILE]
    for name in names:
        path = path_of(tiny, name)
        good = path.read_bytes()
        for _ in range(20):
            spoilt = bytearray(good)
            place = drawn.choice([place for place in range(len(good)) if good[place : place + 1].isalnum()])
            spoilt[place] ^= 1
            path.write_bytes(spoilt)
            assert faults(tiny, deep=True), (name, place)
        path.write_bytes(good)
