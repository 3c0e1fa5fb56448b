"""Fingerprints and manifests over inputs that nobody thought of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.trainables.cache.format.test_cache_identity import FACTS
from trainables.cache.format.identity import bank_fingerprint, folder_name, make_identity
from trainables.cache.format.manifest import Manifest, parse_manifest, read_manifest, write_manifest
from trainables.cache.format.planning import shards_of
from trainables.cache.format.records import Origin, Shard, ShardRecord
from trainables.cache.format.storage import open_place
from trainables.config import (
    BankConfig,
    CacheIdentity,
    CropFlipStep,
    CutoutStep,
    Precision,
    Recipe,
    digest_of,
)
from trainables.errors import CacheError

DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
STEPS = st.one_of(
    st.builds(
        CropFlipStep, op=st.just("crop_flip"), padding=st.integers(0, 64), flip_probability=st.floats(0, 1)
    ),
    st.builds(CutoutStep, op=st.just("cutout"), max_fraction=st.floats(0, 1)),
)
RECIPES = st.lists(STEPS, max_size=3).map(tuple)
PLAIN_PRECISIONS = st.sampled_from([kind for kind in Precision if kind is not Precision.TOPK])
IDENTITIES = st.builds(
    CacheIdentity,
    schema_version=st.integers(1, 9),
    teacher=DIGESTS,
    data=DIGESTS,
    split=DIGESTS,
    preprocessing=DIGESTS,
    seed=st.integers(0, 2**31 - 1),
    n_classes=st.integers(2, 1000),
    dtype=PLAIN_PRECISIONS,
) | st.builds(
    CacheIdentity,
    schema_version=st.integers(1, 9),
    teacher=DIGESTS,
    data=DIGESTS,
    split=DIGESTS,
    preprocessing=DIGESTS,
    seed=st.integers(0, 2**31 - 1),
    n_classes=st.integers(2, 1000),
    dtype=st.just(Precision.TOPK),
    top_k=st.integers(1, 999),
)


@settings(deadline=None, max_examples=25)
@given(IDENTITIES, IDENTITIES, RECIPES, RECIPES)
def test_fingerprints_are_equal_exactly_when_all_inputs_are(
    one: CacheIdentity, other: CacheIdentity, recipe: Recipe, second: Recipe
) -> None:
    assert (one.digest() == other.digest()) == (one == other)
    same = (one, recipe) == (other, second)
    assert (bank_fingerprint(one, recipe) == bank_fingerprint(other, second)) == same
    assert (folder_name(one, {"weak": recipe}) == folder_name(other, {"weak": second})) == same


@settings(deadline=None, max_examples=25)
@given(IDENTITIES, IDENTITIES, st.sampled_from(sorted(CacheIdentity.model_fields)))
def test_a_fingerprint_changes_with_each_single_input(
    identity: CacheIdentity, source: CacheIdentity, field: str
) -> None:
    changed = identity.model_copy(update={field: getattr(source, field)})
    is_same = getattr(identity, field) == getattr(source, field)
    assert (changed.digest() == identity.digest()) == is_same
    assert (bank_fingerprint(changed, ()) == bank_fingerprint(identity, ())) == is_same


@settings(deadline=None, max_examples=15)
@given(IDENTITIES, RECIPES, RECIPES, st.randoms())
def test_the_order_of_keys_changes_no_fingerprint(
    identity: CacheIdentity, weak: Recipe, strong: Recipe, order: Any
) -> None:
    keys = list(identity.plain())
    order.shuffle(keys)
    shuffled = CacheIdentity.from_plain({key: identity.plain()[key] for key in keys})
    assert shuffled.digest() == identity.digest()
    names = {"weak": weak, "strong": strong}
    assert folder_name(identity, names) == folder_name(shuffled, dict(reversed(names.items())))


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.FP32])
def test_caches_from_before_there_were_other_precisions_keep_their_fingerprints(precision: Precision) -> None:
    identity = make_identity("a" * 64, FACTS, seed=7, precision=precision, top_k=100)
    fields = {
        "schema_version": 1,
        "teacher": "a" * 64,
        "data": FACTS.data_digest,
        "split": FACTS.ids_digest,
        "preprocessing": digest_of({"mean": [0.5], "std": [0.25], "input_shape": [1, 8, 8]}),
        "seed": 7,
        "n_classes": 2,
        "dtype": precision.value,
    }
    assert identity.digest() == digest_of(fields)
    assert bank_fingerprint(identity, ()) == digest_of({"identity": fields, "recipe": []})


def test_records_from_before_there_were_embeddings_are_read_and_written_as_they_were() -> None:
    shard = {"bank": "weak", "view": 0, "index": 0, "first": 0, "rows": 4}
    record = {
        "shard": shard,
        "file": "bank=weak/view=0000/shard-00000.parquet",
        "first_id": 0,
        "last_id": 3,
        "bytes": 10,
        "sha256": "0" * 64,
        "correct": 1,
        "fingerprint": "f" * 64,
    }
    assert ShardRecord.from_plain(record).plain() == record
    assert Shard.from_plain(shard).commit == "_commits/weak-0000-00000.json"
    origin = {
        "identity": make_identity("a" * 64, FACTS, seed=7, precision=Precision.FP16).plain(),
        "n_rows": 4,
        "classes": ["a", "b"],
        "rows_per_shard": 16,
        "recipes": {"weak": []},
    }
    assert Origin.from_plain(origin).plain() == origin


def test_a_top_k_of_all_classes_is_refused_before_anything_is_built() -> None:
    with pytest.raises(
        CacheError, match=r"cache.top_k is 100, but the data set has 2 classes; allowed: 1 to 1"
    ):
        make_identity("a" * 64, FACTS, seed=7, precision=Precision.TOPK, top_k=100)


@dataclass(frozen=True)
class Size:
    rows: int
    per_shard: int
    views: tuple[int, int]
    width: int | None


SIZES = st.builds(
    Size,
    rows=st.integers(1, 60),
    per_shard=st.integers(16, 40),
    views=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    width=st.none() | st.integers(1, 2048),
)


def manifest_of(size: Size) -> Manifest:
    identity = make_identity("a" * 64, FACTS, seed=7, precision=Precision.FP16)
    banks = {
        name: BankConfig(views=views) for name, views in zip(("strong", "weak"), size.views, strict=True)
    }
    parts = ("logits",) if size.width is None else ("logits", "embedding")
    records = tuple(
        ShardRecord(
            shard=shard,
            file=shard.file,
            first_id=shard.first,
            last_id=shard.first + shard.rows - 1,
            bytes=10 * shard.rows,
            sha256="0" * 64,
            correct=0,
            fingerprint="f" * 64,
            shape=(size.width or 0,) if part == "embedding" else None,
        )
        for name, bank in banks.items()
        for view in range(bank.views)
        for part in parts
        for plain in shards_of(name, view, n_rows=size.rows, rows_per_shard=size.per_shard)
        for shard in [plain.with_overrides(part=part)]
    )
    return Manifest(
        identity=identity,
        n_rows=size.rows,
        classes=("a", "b"),
        banks=banks,
        shards=records,
        rows=size.rows * sum(size.views),
        bytes=sum(record.bytes for record in records),
        versions={"torch": "2"},
    )


@settings(deadline=None, max_examples=15)
@given(SIZES)
def test_a_manifest_comes_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, size: Size
) -> None:
    manifest = manifest_of(size)
    place = open_place(str(tmp_path_factory.mktemp("cache")))
    sha256 = write_manifest(place, manifest)
    assert read_manifest(place) == read_manifest(place, sha256) == (manifest, sha256)
    assert manifest.embedding_width == size.width
    for bank, views in zip(("strong", "weak"), size.views, strict=True):
        for view in range(views):
            shards = manifest.shards_of(bank, view)
            assert sum(record.shard.rows for record in shards) == size.rows
            assert {record.shard.part for record in shards} == {"logits"}


@settings(deadline=None, max_examples=25)
@given(SIZES, st.data())
def test_a_manifest_that_contradicts_itself_is_refused(size: Size, data: st.DataObject) -> None:
    plain = manifest_of(size).plain()
    which = data.draw(st.integers(0, len(plain["shards"]) - 1))
    shard = plain["shards"][which]["shard"]
    fault = data.draw(
        st.sampled_from(["missing", "doubled", "moved", "short", "rows", "bytes", "views", "classes", "bank"])
    )
    match fault:
        case "missing":
            del plain["shards"][which]
        case "doubled":
            plain["shards"].append(plain["shards"][which])
        case "moved":
            shard["first"] += 1
        case "short":
            shard["rows"] += 1
        case "views":
            plain["banks"]["weak"]["views"] += 1
        case "classes":
            plain["classes"].append("c")
        case "bank":
            shard["bank"] = "other"
        case _:
            plain[fault] += 1
    with pytest.raises(
        CacheError, match=r"there is not a readable Manifest record .*remove it and run the cache"
    ):
        parse_manifest(json.dumps(plain).encode(), "there")


def test_features_of_two_shapes_are_refused() -> None:
    plain = manifest_of(Size(4, 16, (1, 1), 8)).plain()
    plain["shards"][1]["shape"] = [9]
    with pytest.raises(CacheError, match="the rows of feature embedding differ in their shape"):
        parse_manifest(json.dumps(plain).encode(), "there")


def test_a_manifest_of_another_format_names_both(tmp_path: Path) -> None:
    manifest = manifest_of(Size(4, 16, (1, 1), None))
    identity = manifest.identity.with_overrides(schema_version=99)
    place = open_place(str(tmp_path))
    write_manifest(place, manifest.with_overrides(identity=identity))
    with pytest.raises(CacheError, match="cache has format 99, this version reads format 1"):
        read_manifest(place)
