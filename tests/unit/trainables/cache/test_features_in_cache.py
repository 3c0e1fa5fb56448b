"""Features through the life of a cache: older ones, growth, inspection, repair, proof, export, room."""

from __future__ import annotations

import copy
import hashlib
import json
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from tests.unit.trainables.cache.tiny_caches import EMBEDDED, TinyCache, random_data, tiny_teacher
from trainables.cache.format.disk_space import expected_bytes
from trainables.cache.format.identity import bank_fingerprint, folder_name
from trainables.cache.format.manifest import MANIFEST, ORIGIN, read_manifest
from trainables.cache.format.planning import (
    agreed_origin,
    all_shards,
    answers_of,
    pieces_of,
    plan_shards,
    together,
)
from trainables.cache.format.records import Origin, Shard, ShardRecord
from trainables.cache.format.storage import open_place
from trainables.cache.tools.export_features import export_feature
from trainables.cache.tools.inspection import Fault, inspect_cache
from trainables.cache.tools.repair import publish_again
from trainables.config import CacheConfig
from trainables.config.cache import FeaturePrecision, is_whole_map
from trainables.data.splits import split_facts
from trainables.errors import CacheError, ConfigError
from trainables.models.embedding import classifier_of
from trainables.teacher.alignment_proof import prove_alignment
from trainables.teacher.cache_request import stated_parts

KEPT = {
    "weak": ("embedding", "stage1", "energy.stage1"),
    "strong": ("embedding",),
    "teacher": ("classifier",),
}
CLASSIFIER = "_classifier/bank=teacher/view=0000/shard-00000.parquet"


@pytest.fixture
def fresh(tiny: TinyCache) -> TinyCache:
    """Nothing is built yet."""
    return tiny.named().but(features=KEPT, rows_per_map=6)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> TinyCache:
    data = random_data()
    tiny = TinyCache(tmp_path_factory.mktemp("built"), data, tiny_teacher(), split_facts(data))
    kitchen = tiny.named().but(features=KEPT, rows_per_map=6)
    kitchen.build()
    return kitchen


@pytest.fixture
def kitchen(built: TinyCache, tmp_path: Path) -> TinyCache:
    """A copy of a cache that has all of it, to be damaged or grown."""
    return replace(built, teacher=copy.deepcopy(built.teacher)).copied(tmp_path)


def as_before(kitchen: TinyCache) -> str:
    """Write the records as they were when there were embeddings alone; gives the manifest's sha256."""

    def older(record: dict[str, Any]) -> dict[str, Any]:
        shape = record.pop("shape", None)
        return record if shape is None else {**record, "embedding_width": shape[0]}

    def rewrite(path: Path, plain: dict[str, Any]) -> str:
        data = json.dumps(plain, indent=1, sort_keys=True).encode() + b"\n"
        path.write_bytes(data)
        return hashlib.sha256(data).hexdigest()

    root = Path(kitchen.uri)
    for path in (root / "_commits").iterdir():
        rewrite(path, older(json.loads(path.read_text())))
    origin = json.loads((root / ORIGIN).read_text())
    assert origin.pop("features") == {"weak": ["embedding"], "strong": ["embedding"]}
    rewrite(root / ORIGIN, {**origin, "embedding": True})
    manifest = json.loads((root / MANIFEST).read_text())
    parts = [record["shard"].get("part", "logits") for record in manifest["shards"]]
    assert parts == ["logits", "embedding"] * 9  # the order is that of before, too
    manifest["shards"] = [older(record) for record in manifest["shards"]]
    for path in (root / "_manifests").iterdir():
        path.unlink()
    sha256 = rewrite(root / MANIFEST, manifest)
    rewrite(root / "_manifests" / f"{sha256}.json", manifest)
    return sha256


def contents(kitchen: TinyCache) -> dict[str, bytes]:
    root = Path(kitchen.uri)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_cache_from_before_other_features_is_read_and_stays_as_it_is(tiny: TinyCache) -> None:
    kitchen = tiny.but(features=EMBEDDED)
    kitchen.build()
    expected = kitchen.open("now").signal("weak", 1, torch.arange(40), ("embedding",)).features["embedding"]
    sha256 = as_before(kitchen)
    before = contents(kitchen)
    reader = kitchen.open("then")
    assert reader.manifest_sha == sha256
    assert reader.feature_shapes("strong") == {"embedding": (288,)}
    assert torch.equal(
        reader.signal("weak", 1, torch.arange(40), ("embedding",)).features["embedding"], expected
    )
    assert inspect_cache(open_place(kitchen.uri), deep=True).findings == ()
    assert kitchen.build() == []
    assert contents(kitchen) == before
    assert {record.fingerprint for record in reader.manifest.shards if record.shard.bank == "weak"} == {
        bank_fingerprint(kitchen.origin(("weak",)).identity, kitchen.views.weak.recipe)
    }


def test_an_older_cache_grows_by_other_features(tiny: TinyCache, fresh: TinyCache) -> None:
    fresh.but(features=EMBEDDED).build()
    as_before(fresh)
    computed = fresh.build()
    assert {shard.part for shard in computed} == {"stage1", "energy.stage1", "classifier"}
    assert {shard.bank for shard in computed} == {"weak", "teacher"}
    assert read_manifest(open_place(fresh.uri))[0].features == KEPT


def test_growing_by_a_map_asks_the_teacher_once_and_computes_it_alone(fresh: TinyCache) -> None:
    fresh.but(features={}).build()
    before = contents(fresh)
    computed = fresh.build()
    assert {shard.part for shard in computed} == {"embedding", "stage1", "energy.stage1", "classifier"}
    assert answers_of(computed) == 120
    after = contents(fresh)
    kept = {name: data for name, data in before.items() if name.endswith(".parquet") or "_commits" in name}
    assert kept.items() <= after.items()
    fresh.open().signal("weak", 1, torch.arange(40), KEPT["weak"])


class Counting(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.images = 0

    def forward(self, images: Tensor) -> Tensor:
        self.images += len(images)
        logits: Tensor = self.network(images)
        return logits


def test_logits_and_maps_of_the_same_rows_take_one_pass(fresh: TinyCache) -> None:
    teacher = Counting(fresh.teacher)
    fresh.but(teacher=teacher, stated={"stage1": "network.stage1"}).build()
    assert teacher.images == 120


def test_every_row_of_a_group_is_in_one_piece_of_each_part(kitchen: TinyCache) -> None:
    origin = kitchen.origin(("weak", "strong"))
    shards = list(all_shards(origin, {"weak": kitchen.views.weak}))
    groups = together(shard for shard in shards if shard.part != "classifier")
    assert [len(group) for group in groups] == [6, 6, 5] * 2  # a map has 3, 3 and 2 files beside three others
    for group in groups:
        for shard in group:
            rows = [row for piece, needing in pieces_of(group) if shard in needing for row in piece]
            assert rows == list(range(shard.first, shard.first + shard.rows))


def test_logits_alone_are_one_piece_a_shard() -> None:
    shard = Shard(bank="weak", view=0, index=1, first=16, rows=16)
    assert pieces_of([shard]) == [(range(16, 32), (shard,))]


@pytest.mark.parametrize("file", [CLASSIFIER, "_stage1/bank=weak/view=0001/shard-00003.parquet"])
def test_a_damaged_file_of_a_part_is_found_and_rebuilt_alone(kitchen: TinyCache, file: str) -> None:
    place, path = open_place(kitchen.uri), Path(kitchen.uri) / file
    assert inspect_cache(place, deep=True).findings == ()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    (finding,) = inspect_cache(place, deep=True).findings
    assert (finding.fault, finding.file) == (Fault.ALTERED, file)
    assert finding.shard is not None
    place.remove(finding.shard.commit)
    assert [shard.file for shard in kitchen.build()] == [file]
    assert inspect_cache(place, deep=True).findings == ()


def test_a_lost_identity_is_restored_with_its_features(fresh: TinyCache) -> None:
    kitchen = fresh.but(feature_precision=FeaturePrecision.FP32)
    kitchen.build()
    place = open_place(kitchen.uri)
    before = Origin.from_plain(json.loads((Path(kitchen.uri) / ORIGIN).read_text()))
    place.remove(ORIGIN)
    publish_again(place, inspect_cache(place))
    restored = Origin.from_plain(json.loads((Path(kitchen.uri) / ORIGIN).read_text()))
    assert restored.features == before.features
    assert (restored.feature_precision, restored.rows_per_map) == (FeaturePrecision.FP32, 6)
    assert kitchen.build() == []


@pytest.mark.parametrize("precision", list(FeaturePrecision))
def test_faithful_features_are_proved(fresh: TinyCache, precision: FeaturePrecision) -> None:
    kitchen = fresh.but(feature_precision=precision)
    kitchen.build()
    prove(kitchen, kitchen.teacher)


def test_a_map_of_another_layer_is_refused_by_name(kitchen: TinyCache) -> None:
    names = ("conv", "norm", "stage1", "drop", "flat", "head")
    parts = dict(kitchen.teacher.named_children())
    parts |= {"stage1": nn.Sequential(nn.ReLU(), Plus(0.5)), "drop": Plus(-0.5)}  # gives the same logits
    other = nn.Sequential(OrderedDict((name, parts[name]) for name in names))
    with pytest.raises(CacheError, match=r"rows of .*sample \d+: stage1 0\.5, energy\.stage1 \d"):
        prove(kitchen, other)


def test_a_map_of_another_size_is_refused_by_name(kitchen: TinyCache) -> None:
    names = ("conv", "norm", "stage1", "drop", "flat", "head")
    parts = dict(kitchen.teacher.named_children())
    wider, narrower = nn.ZeroPad2d(1), nn.ZeroPad2d(-1)  # gives the same logits
    parts |= {"stage1": nn.Sequential(nn.ReLU(), wider), "drop": narrower}
    other = nn.Sequential(OrderedDict((name, parts[name]) for name in names))
    message = r"keeps stage1 as 8x6x6 numbers a sample, and the live teacher's has 8x8x8; .* cache\.uri"
    with pytest.raises(CacheError, match=message):
        prove(kitchen, other)


def test_another_classifier_with_the_same_logits_is_refused(fresh: TinyCache) -> None:
    kitchen = fresh.but(features={"teacher": ("classifier",)})
    kitchen.build()
    prove(kitchen, kitchen.teacher)
    last = classifier_of(kitchen.teacher, 5)
    with torch.no_grad():
        last.weight += 1e-7  # the logits stay within their bound
    with pytest.raises(
        CacheError, match=r"the weights of the teacher's classifier .* are not those of the live"
    ):
        prove(kitchen, kitchen.teacher)


def prove(kitchen: TinyCache, teacher: nn.Module) -> None:
    prove_alignment(kitchen.open(), kitchen.data, teacher, kitchen.views, kitchen.seed)


class Plus(nn.Module):
    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, values: Tensor) -> Tensor:
        return values + self.offset


def test_a_vector_is_exported_as_plain_columns(kitchen: TinyCache, tmp_path: Path) -> None:
    place = open_place(kitchen.uri)
    manifest, _ = read_manifest(place)
    path = tmp_path / "embedding.parquet"
    assert export_feature(place, manifest, path, "embedding", banks=("weak",)) == 80
    frame = pd.read_parquet(path)
    assert list(frame.columns[:5]) == ["bank", "view", "sample_id", "embedding_0", "embedding_1"]
    row = frame[(frame["view"] == 1) & (frame["sample_id"] == 3 * 7 + 1)].iloc[0, 3:].to_numpy(np.float32)
    kept = kitchen.open().signal("weak", 1, torch.tensor([7]), ("embedding",)).features["embedding"]
    assert np.array_equal(row, kept[0].numpy())


def test_the_classifier_is_exported_by_class(kitchen: TinyCache, tmp_path: Path) -> None:
    place = open_place(kitchen.uri)
    manifest, _ = read_manifest(place)
    path = tmp_path / "classifier.csv"
    assert export_feature(place, manifest, path, "classifier", banks=("weak", "strong")) == 5
    frame = pd.read_csv(path)
    assert list(frame["class"]) == ["ant", "bee", "cat", "dog", "eel"]
    bias = classifier_of(kitchen.teacher, 5).get_parameter("bias")
    assert np.allclose(frame["bias"], bias.detach())


def test_what_a_plain_table_cannot_hold_is_refused(kitchen: TinyCache, tmp_path: Path) -> None:
    place = open_place(kitchen.uri)
    manifest, _ = read_manifest(place)
    with pytest.raises(ConfigError, match=r"--feature: found 'stage1'; allowed: embedding, classifier"):
        export_feature(place, manifest, tmp_path / "a.csv", "stage1", banks=("strong",))
    shards = [
        record.with_overrides(shape=[200, 100]) if record.shard.part == "stage1" else record
        for record in manifest.shards
    ]
    wide = manifest.model_copy(update={"shards": tuple(shards)})
    with pytest.raises(ConfigError, match=r"a row of stage1 has 20,000 numbers.*_stage1, where a row is one"):
        export_feature(place, wide, tmp_path / "a.csv", "stage1", banks=("weak",))


@pytest.mark.parametrize("precision", list(FeaturePrecision))
def test_the_bytes_that_parts_will_take_are_known_before(
    fresh: TinyCache, precision: FeaturePrecision
) -> None:
    kitchen = fresh.but(feature_precision=precision, rows_per_map=40, rows_per_shard=40)
    origin, banks = (
        kitchen.origin(("weak", "strong")),
        {"weak": kitchen.views.weak, "strong": kitchen.views.strong},
    )
    plan = plan_shards(open_place(kitchen.uri), origin, banks)
    shapes = {"embedding": (288,), "stage1": (8, 6, 6), "energy.stage1": (6, 6), "classifier": (289,)}
    expected = {
        part: expected_bytes(origin, [s for s in plan.missing if s.part == part], shapes) for part in shapes
    }
    kitchen.build()
    for part, size in expected.items():
        files = list((Path(kitchen.uri) / f"_{part}").rglob("*.parquet"))
        written = sum(path.stat().st_size for path in files)
        assert abs(size - written) < 3000 * len(files), part


def test_features_in_fp32_have_a_fingerprint_and_a_folder_of_their_own(tiny: TinyCache) -> None:
    half, full = (tiny.but(feature_precision=kind).origin(("weak",)) for kind in FeaturePrecision)
    logits, embedding = (
        Shard(bank="weak", view=0, index=0, first=0, rows=4, part=part) for part in ("logits", "embedding")
    )
    assert half.fingerprint_of(logits) == half.fingerprint_of(embedding) == full.fingerprint_of(logits)
    assert full.fingerprint_of(embedding) != half.fingerprint_of(embedding)
    names = {folder_name(half.identity, half.recipes, kind) for kind in FeaturePrecision}
    assert len(names) == 2
    assert folder_name(half.identity, half.recipes) in names


def test_small_features_are_kept_unasked_and_maps_where_they_are_named() -> None:
    asked = {"weak": ("embedding", "stage2", "energy.stage2"), "weak90": ("embedding", "ss_head", "branch1")}
    banks = ("weak", "weak90", "strong")
    assert CacheConfig().kept_features(banks, asked) == {
        "weak": ("embedding", "energy.stage2"),
        "weak90": ("embedding", "ss_head", "branch1"),
    }
    named = CacheConfig(features=("stage2",)).kept_features(banks, asked)
    assert named["weak"] == ("embedding", "stage2", "energy.stage2")
    assert "strong" not in named


def test_what_is_named_and_nobody_asks_for_is_kept_of_every_bank() -> None:
    kept = CacheConfig(embedding=True, features=("last",)).kept_features(("weak", "strong"), {})
    assert kept == {"weak": ("embedding", "last"), "strong": ("embedding", "last")}


@pytest.mark.parametrize(
    ("name", "is_map"),
    [("stage2", True), ("stage2.pre", True), ("tokens", True), ("layer3.0.conv", True), ("embedding", False)],
)
def test_what_is_not_known_to_be_small_counts_as_a_map(name: str, is_map: bool) -> None:
    assert is_whole_map(name) is is_map


@pytest.mark.parametrize("name", ["logits", "classifier", "commits", "manifests", "../up", "a/b", "", "a..b"])
def test_a_feature_has_no_name_of_the_caches_own(name: str) -> None:
    with pytest.raises(ValueError, match="features"):
        CacheConfig.from_plain({"features": [name]})


def test_records_of_embeddings_from_before_are_read() -> None:
    record = {
        "shard": {"bank": "weak", "view": 0, "index": 0, "first": 0, "rows": 4, "part": "embedding"},
        "file": "_embedding/bank=weak/view=0000/shard-00000.parquet",
        "first_id": 0,
        "last_id": 3,
        "bytes": 10,
        "sha256": "0" * 64,
        "correct": 0,
        "fingerprint": "f" * 64,
        "embedding_width": 64,
    }
    read = ShardRecord.from_plain(record)
    assert (read.shape, read.embedding_width) == ((64,), 64)
    assert (read.shard.file, read.shard.commit) == (record["file"], "_commits/weak-0000-00000.embedding.json")
    assert ShardRecord.from_plain(read.plain()) == read


def test_what_the_file_says_is_a_feature_is_another_when_it_says_another_part(kitchen: TinyCache) -> None:
    other = kitchen.but(stated={"stage1": "norm"})
    with pytest.raises(
        CacheError,
        match=r"cache keeps as energy\.stage1 stage1, this experiment says norm; .*stage1 stage1, this",
    ):
        other.build()
    assert other.but(features={"weak": ("embedding",)}).build() == []


def test_the_last_map_is_of_the_last_stage_that_is_named() -> None:
    paths = {"stage1": "layer1", "stage2": "layer4", "stem": "conv"}
    kept = {"weak": ("last", "energy.stage1", "embedding"), "strong": ("stage2",)}
    assert stated_parts(paths, kept) == {"last": "layer4", "energy.stage1": "layer1", "stage2": "layer4"}
    assert stated_parts({}, kept) == {}


def test_what_a_new_preparation_makes_takes_the_place_of_the_old_and_an_unprepared_teacher_plans(
    fresh: TinyCache,
) -> None:
    kitchen = fresh.but(features={"weak": ("embedding",)}, prepared=PREPARATIONS[1])
    kitchen.build()
    place, banks = open_place(kitchen.uri), {"weak": kitchen.views.weak}
    assert read_manifest(place)[0].made_by == PREPARATIONS[1]
    unprepared = agreed_origin(place, kitchen.but(prepared={}).origin(("weak",)))
    assert plan_shards(place, unprepared, banks).missing == ()
    prints = {kitchen.but(prepared=one).origin(("weak",)).fingerprint_of(EMBEDDING) for one in PREPARATIONS}
    assert len(prints) == 3
    anew = kitchen.but(prepared=PREPARATIONS[2]).build()
    assert [shard.part for shard in anew] == ["embedding"] * 6
    assert read_manifest(place)[0].made_by == PREPARATIONS[2]
    assert inspect_cache(place, deep=True).findings == ()


EMBEDDING = Shard(bank="weak", view=0, index=0, first=0, rows=16, part="embedding")
PREPARATIONS: tuple[dict[str, str], ...] = ({}, {"embedding": "prepared:aa"}, {"embedding": "prepared:bb"})
