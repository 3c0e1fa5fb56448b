from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.trainables.cache.tiny_caches import TinyCache, random_data
from trainables.cache.format.disk_space import bytes_in_words, expected_bytes, require_disk_space
from trainables.cache.format.planning import Plan, plan_shards
from trainables.cache.format.records import Shard
from trainables.cache.format.storage import Place, open_place
from trainables.config import Precision
from trainables.data.splits import split_facts
from trainables.errors import CacheError


@dataclass(frozen=True)
class TightPlace(Place):
    """A folder on a disk that is almost full."""

    left: int = 0

    def free_bytes(self) -> int | None:
        return self.left


def plan_of(tiny: TinyCache, place: Place) -> Plan:
    banks = {bank: tiny.views.bank(bank) for bank in ("weak", "strong")}
    return plan_shards(place, tiny.origin(("weak", "strong")), banks)


def tight(tiny: TinyCache, left: int) -> TightPlace:
    place = open_place(tiny.uri)
    return TightPlace(place.uri, place.filesystem, place.root, left)


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.FP32])
def test_the_bytes_that_are_expected_are_those_that_are_written(
    tiny: TinyCache, precision: Precision
) -> None:
    data = random_data(600)
    kitchen = tiny.but(
        precision=precision, data=data, facts=split_facts(data), rows_per_shard=200, batch_size=200
    )
    place = open_place(kitchen.uri)
    expected = expected_bytes(kitchen.origin(("weak", "strong")), plan_of(kitchen, place).missing)
    kitchen.build()
    written = sum(path.stat().st_size for path in Path(kitchen.uri).rglob("*.parquet"))
    assert abs(expected - written) < 0.01 * written


def test_only_what_is_missing_is_counted(tiny: TinyCache) -> None:
    place = open_place(tiny.uri)
    whole = require_disk_space(place, plan_of(tiny, place))
    tiny.build(stop_after=6)
    rest = require_disk_space(place, plan_of(tiny, place))
    assert 0 < rest < 0.4 * whole
    tiny.build()
    assert require_disk_space(tight(tiny, 0), plan_of(tiny, place)) == 0


def test_a_disk_that_cannot_hold_the_cache_is_refused(tiny: TinyCache) -> None:
    place = tight(tiny, 9_000)
    with pytest.raises(
        CacheError, match=r"needs \d+\.\d kB more for 9 files, and .* has 9\.0 kB free; .*fp16"
    ):
        require_disk_space(place, plan_of(tiny, place))
    assert not Path(tiny.uri).exists()


def test_embeddings_count_with_their_width(tiny: TinyCache) -> None:
    origin = tiny.origin(("weak",))
    shard = Shard(bank="weak", view=0, index=0, first=0, rows=1000, part="embedding")
    narrow, wide = (expected_bytes(origin, [shard], {"embedding": (width,)}) for width in (1, 513))
    assert wide - narrow == 1000 * 512 * 2


def test_the_free_space_of_a_folder_that_is_not_there_yet_is_that_of_its_disk(tmp_path: Path) -> None:
    free = open_place(str(tmp_path / "a" / "b")).free_bytes()
    assert free is not None
    assert free > 0
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("count", "words"),
    [(999, "999 bytes"), (1500, "1.5 kB"), (2_060_000, "2.1 MB"), (3_000_000_000_000, "3.0 TB")],
)
def test_bytes_are_told_in_words(count: int, words: str) -> None:
    assert bytes_in_words(count) == words
