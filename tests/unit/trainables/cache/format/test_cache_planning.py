from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainables.cache.tiny_caches import TinyCache
from trainables.cache.format.manifest import discard_shards, read_manifest
from trainables.cache.format.records import Shard
from trainables.cache.format.storage import open_place
from trainables.config import BankConfig, Precision, ViewsConfig
from trainables.errors import CacheError


def more_views(views: ViewsConfig, count: int) -> ViewsConfig:
    return views.with_overrides(weak=views.weak.with_overrides(views=count))


def test_a_cache_has_every_shard_of_every_view(tiny: TinyCache) -> None:
    computed = tiny.build()
    assert len(computed) == 9  # 40 samples in shards of 16, over 2 weak views and a strong one
    manifest, _ = read_manifest(open_place(tiny.uri))
    assert (manifest.rows, manifest.n_rows) == (120, 40)
    assert manifest.bytes == sum(path.stat().st_size for path in Path(tiny.uri).rglob("*.parquet"))
    assert [record.shard.rows for record in manifest.shards_of("weak", 1)] == [16, 16, 8]


def test_a_second_build_computes_nothing_and_keeps_the_manifest(tiny: TinyCache) -> None:
    tiny.build()
    before = read_manifest(open_place(tiny.uri))
    assert tiny.build() == []
    assert read_manifest(open_place(tiny.uri)) == before


def test_an_interrupted_build_goes_on_where_it_stopped(tiny: TinyCache) -> None:
    first = tiny.build(stop_after=4)
    with pytest.raises(CacheError, match=r"no complete teacher cache"):
        read_manifest(open_place(tiny.uri))
    second = tiny.build()
    assert len(first) == 4
    assert len(second) == 5
    assert set(first).isdisjoint(second)


def test_more_views_compute_only_those(tiny: TinyCache) -> None:
    tiny.build()
    computed = tiny.but(views=more_views(tiny.views, 3)).build()
    assert {(shard.bank, shard.view) for shard in computed} == {("weak", 2)}
    assert read_manifest(open_place(tiny.uri))[0].banks["weak"].views == 3


def test_another_bank_computes_only_that_one(tiny: TinyCache) -> None:
    tiny.build(("weak",))
    assert {shard.bank for shard in tiny.build(("weak", "strong"))} == {"strong"}


def test_fewer_views_or_banks_leave_the_cache_as_it_is(tiny: TinyCache) -> None:
    tiny.build()
    before = read_manifest(open_place(tiny.uri))
    assert tiny.but(views=more_views(tiny.views, 1)).build(("weak",)) == []
    assert read_manifest(open_place(tiny.uri)) == before


def test_another_shard_size_does_not_disturb_a_cache(tiny: TinyCache) -> None:
    tiny.build(stop_after=4)
    assert len(tiny.but(rows_per_shard=40).build()) == 5


@pytest.mark.parametrize("fault", ["missing", "short", "no record", "discarded"])
def test_a_shard_without_valid_record_or_file_is_computed_alone(tiny: TinyCache, fault: str) -> None:
    tiny.build()
    shard = Shard(bank="weak", view=1, index=2, first=32, rows=8)
    file, commit = Path(tiny.uri) / shard.file, Path(tiny.uri) / shard.commit
    match fault:
        case "missing":
            file.unlink()
        case "short":
            file.write_bytes(file.read_bytes()[:-1])
        case "no record":
            commit.unlink()
        case _:
            discard_shards(open_place(tiny.uri), (shard,))
    assert tiny.build() == [shard]


def test_discarding_a_shard_twice_is_harmless(tiny: TinyCache) -> None:
    tiny.build()
    shard = Shard(bank="weak", view=1, index=2, first=32, rows=8)
    for _ in range(2):
        discard_shards(open_place(tiny.uri), (shard,))
    assert tiny.build() == [shard]


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
    tiny: TinyCache, change: dict[str, Any], message: str, finished: bool
) -> None:
    tiny.build(("weak",), stop_after=10_000 if finished else 1)
    with pytest.raises(CacheError, match=f"{message}; point cache.uri elsewhere or remove it"):
        tiny.but(**change).build(("weak",))


@pytest.mark.parametrize("name", ["_identity.json", "_manifest.json", "_commits/weak-0000-00000.json"])
def test_a_record_that_cannot_be_read_is_named(tiny: TinyCache, name: str) -> None:
    tiny.build()
    (Path(tiny.uri) / name).write_text('{"identity": 1')
    with pytest.raises(CacheError, match=f"{name} is not a readable .*remove it"):
        tiny.build()


def test_an_unknown_uri_scheme_is_refused() -> None:
    with pytest.raises(CacheError, match=r"cannot open 'gopher://x/y'.*s3://bucket/folder"):
        open_place("gopher://x/y")


def test_a_folder_that_cannot_be_written_is_named(tiny: TinyCache) -> None:
    Path(tiny.uri).write_text("a file where the folder should be")
    with pytest.raises(CacheError, match=r"cache/_identity.json"):
        tiny.build()


def test_a_file_uri_is_the_same_place_as_its_path(tiny: TinyCache) -> None:
    tiny.build()
    assert read_manifest(open_place(Path(tiny.uri).as_uri())) == read_manifest(open_place(tiny.uri))
