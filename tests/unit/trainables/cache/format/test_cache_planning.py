from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainables.cache.lab import CacheLab
from trainables.cache.format.manifest import Shard, discard_shards, read_manifest
from trainables.cache.format.storage import open_place
from trainables.config import BankConfig, Precision, ViewsConfig
from trainables.errors import CacheError


def more_views(views: ViewsConfig, count: int) -> ViewsConfig:
    return views.with_overrides(weak=views.weak.with_overrides(views=count))


def test_a_cache_has_every_shard_of_every_view(lab: CacheLab) -> None:
    computed = lab.build()
    assert len(computed) == 9  # 40 samples in shards of 16, over 2 weak views and a strong one
    manifest, _ = read_manifest(open_place(lab.uri))
    assert (manifest.rows, manifest.n_rows) == (120, 40)
    assert manifest.bytes == sum(path.stat().st_size for path in Path(lab.uri).rglob("*.parquet"))
    assert [record.shard.rows for record in manifest.shards_of("weak", 1)] == [16, 16, 8]


def test_a_second_build_computes_nothing_and_keeps_the_manifest(lab: CacheLab) -> None:
    lab.build()
    before = read_manifest(open_place(lab.uri))
    assert lab.build() == []
    assert read_manifest(open_place(lab.uri)) == before


def test_an_interrupted_build_goes_on_where_it_stopped(lab: CacheLab) -> None:
    first = lab.build(stop_after=4)
    with pytest.raises(CacheError, match=r"no complete teacher cache"):
        read_manifest(open_place(lab.uri))
    second = lab.build()
    assert len(first) == 4
    assert len(second) == 5
    assert set(first).isdisjoint(second)


def test_more_views_compute_only_those(lab: CacheLab) -> None:
    lab.build()
    computed = lab.but(views=more_views(lab.views, 3)).build()
    assert {(shard.bank, shard.view) for shard in computed} == {("weak", 2)}
    assert read_manifest(open_place(lab.uri))[0].banks["weak"].views == 3


def test_another_bank_computes_only_that_one(lab: CacheLab) -> None:
    lab.build(("weak",))
    assert {shard.bank for shard in lab.build(("weak", "strong"))} == {"strong"}


def test_fewer_views_or_banks_leave_the_cache_as_it_is(lab: CacheLab) -> None:
    lab.build()
    before = read_manifest(open_place(lab.uri))
    assert lab.but(views=more_views(lab.views, 1)).build(("weak",)) == []
    assert read_manifest(open_place(lab.uri)) == before


def test_another_shard_size_does_not_disturb_a_cache(lab: CacheLab) -> None:
    lab.build(stop_after=4)
    assert len(lab.but(rows_per_shard=40).build()) == 5


@pytest.mark.parametrize("fault", ["missing", "short", "no record", "discarded"])
def test_a_shard_without_valid_record_or_file_is_computed_alone(lab: CacheLab, fault: str) -> None:
    lab.build()
    shard = Shard(bank="weak", view=1, index=2, first=32, rows=8)
    file, commit = Path(lab.uri) / shard.file, Path(lab.uri) / shard.commit
    match fault:
        case "missing":
            file.unlink()
        case "short":
            file.write_bytes(file.read_bytes()[:-1])
        case "no record":
            commit.unlink()
        case _:
            discard_shards(open_place(lab.uri), (shard,))
    assert lab.build() == [shard]


def test_discarding_a_shard_twice_is_harmless(lab: CacheLab) -> None:
    lab.build()
    shard = Shard(bank="weak", view=1, index=2, first=32, rows=8)
    for _ in range(2):
        discard_shards(open_place(lab.uri), (shard,))
    assert lab.build() == [shard]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher_digest": "b" * 64}, "written by teacher aaaaaaaa…, this experiment uses bbbbbbbb…"),
        ({"seed": 8}, "views of seed 7, this experiment uses seed 8"),
        ({"precision": Precision.FP32}, "keeps fp16, this experiment asks for fp32"),
        (
            {"views": ViewsConfig(weak=BankConfig(views=2))},
            "shows bank weak by recipe .*crop_flip.*uses \\[\\]",
        ),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_of_another_cache_is_refused(
    lab: CacheLab, change: dict[str, Any], message: str, finished: bool
) -> None:
    lab.build(("weak",), stop_after=10_000 if finished else 1)
    with pytest.raises(CacheError, match=f"{message}; point cache.uri elsewhere or remove it"):
        lab.but(**change).build(("weak",))


@pytest.mark.parametrize("name", ["_identity.json", "_manifest.json", "_commits/weak-0000-00000.json"])
def test_a_record_that_cannot_be_read_is_named(lab: CacheLab, name: str) -> None:
    lab.build()
    (Path(lab.uri) / name).write_text('{"identity": 1')
    with pytest.raises(CacheError, match=f"{name} is not a readable .*remove it"):
        lab.build()


def test_an_unknown_uri_scheme_is_refused() -> None:
    with pytest.raises(CacheError, match=r"cannot open 'gopher://x/y'.*s3://bucket/folder"):
        open_place("gopher://x/y")


def test_a_folder_that_cannot_be_written_is_named(lab: CacheLab) -> None:
    Path(lab.uri).write_text("a file where the folder should be")
    with pytest.raises(CacheError, match=r"cache/_identity.json"):
        lab.build()


def test_a_file_uri_is_the_same_place_as_its_path(lab: CacheLab) -> None:
    lab.build()
    assert read_manifest(open_place(Path(lab.uri).as_uri())) == read_manifest(open_place(lab.uri))
