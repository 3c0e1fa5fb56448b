"""A folder that experiments share: each plans, computes, proves and is served what it asks for itself."""

from __future__ import annotations

import json
import shutil
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.unit.trainables.cache.tiny_caches import CPU, VIEWS, TinyCache, random_data
from trainables.cache.format.manifest import MANIFEST, ORIGIN, Manifest, read_manifest, read_record
from trainables.cache.format.planning import agreed_origin, plan_shards
from trainables.cache.format.records import Origin
from trainables.cache.format.storage import open_place
from trainables.cache.tools.inspection import Fault, inspect_cache
from trainables.cache.tools.repair import publish_again, withdraw
from trainables.config.cache import FeaturePrecision
from trainables.data.splits import split_facts
from trainables.errors import CacheError
from trainables.teacher.alignment_proof import prove_alignment
from trainables.teacher.online import OnlineTeacher
from trainables.training.loaded.teacher_answers import CacheBesideTeacher, TeacherAnswers

MORE = VIEWS.with_overrides(weak=VIEWS.weak.with_overrides(views=3))
ROWS = torch.arange(40)
ENERGY, MAP = "energy.stage1", "stage1"
Features = dict[str, tuple[str, ...]]


def two_stages() -> nn.Module:
    """Parts `a` and `b` give maps of the same shape and other values."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        a, b = (nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()) for _ in range(2))
        parts = OrderedDict(
            stem=nn.Conv2d(1, 4, 3, padding=1), a=a, b=b, flat=nn.Flatten(), head=nn.Linear(256, 5)
        )
    return nn.Sequential(parts)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> TinyCache:
    data = random_data()
    first = TinyCache(
        tmp_path_factory.mktemp("shared"),
        data,
        two_stages(),
        split_facts(data),
        features={"weak": (ENERGY, MAP), "strong": (ENERGY,)},
        stated={"stage1": "a"},
        rows_per_map=6,
    )
    first.build()
    return first


@pytest.fixture
def first(built: TinyCache, tmp_path: Path) -> TinyCache:
    """An experiment that says which part is stage 1 and keeps its map and energies; its cache is complete."""
    return replace(built, teacher=two_stages()).copied(tmp_path)


@pytest.fixture
def second(first: TinyCache) -> TinyCache:
    """Another one in the same folder: more views, embeddings alone, and another part is its stage 1."""
    return first.but(views=MORE, features={"weak": ("embedding",)}, stated={"stage1": "b"})


def manifest_of(cache: TinyCache) -> Manifest:
    return read_manifest(open_place(cache.uri))[0]


def prove(cache: TinyCache, banks: tuple[str, ...] = ("weak", "strong")) -> int:
    reader = cache.open(f"proof {len(list(cache.folder.iterdir()))}", kept=cache.features)
    return prove_alignment(reader, cache.data, cache.teacher, cache.views, cache.seed, banks=banks).pairs


def test_a_cache_that_grows_computes_no_feature_that_others_asked_for(
    first: TinyCache, second: TinyCache
) -> None:
    computed = second.build()
    assert {(shard.part, shard.view) for shard in computed if shard.part == "logits"} == {("logits", 2)}
    assert {shard.part for shard in computed} == {"logits", "embedding"}
    assert not list(Path(first.uri).glob(f"_{MAP}/bank=weak/view=0002/*"))
    assert prove(second) == 64


def test_what_does_not_cover_all_views_leaves_the_manifest_and_stays_on_disk(
    first: TinyCache, second: TinyCache
) -> None:
    before = {path: path.read_bytes() for path in Path(first.uri).rglob("*stage1*/**/*.parquet")}
    assert len(before) == 6 + 16 + 3  # energies of two views, the map of them, energies of the other bank
    second.build()
    manifest = manifest_of(first)
    assert manifest.features == {"weak": ("embedding",), "strong": (ENERGY,)}
    assert manifest.made_by == {ENERGY: "a"}
    assert {path: path.read_bytes() for path in before} == before
    assert inspect_cache(open_place(first.uri), deep=True).findings == ()
    origin = read_record(open_place(first.uri), ORIGIN, Origin)
    assert origin is not None
    assert origin.features["weak"] == (ENERGY, MAP, "embedding")
    assert origin.made_by == {ENERGY: "a", MAP: "a"}


def test_who_asks_again_finds_them_and_computes_what_is_missing_from_the_right_part(
    first: TinyCache, second: TinyCache
) -> None:
    second.build()
    first = first.but(views=MORE)
    computed = first.build()
    assert {(shard.bank, shard.part, shard.view) for shard in computed} == {
        ("weak", ENERGY, 2),
        ("weak", MAP, 2),
    }
    manifest = manifest_of(first)
    assert manifest.features == {"weak": (ENERGY, MAP, "embedding"), "strong": (ENERGY,)}
    live = first.live().answers(VIEWS.weak.recipe, 2, ROWS, (ENERGY,)).features[ENERGY]
    kept = first.open("again").signal("weak", 2, ROWS, (ENERGY,)).features[ENERGY]
    assert torch.allclose(kept, live, rtol=2e-3, atol=1e-4)
    assert prove(first) == prove(second) == 64


def test_views_that_another_added_are_not_computed_for_who_asks_for_fewer(
    first: TinyCache, second: TinyCache
) -> None:
    second.build()
    assert first.build() == []
    manifest = manifest_of(first)
    assert manifest.banks["weak"].views == 2
    assert manifest.features == {"weak": (ENERGY, MAP, "embedding"), "strong": (ENERGY,)}
    assert prove(first) == 64
    assert inspect_cache(open_place(first.uri), deep=True).findings == ()
    assert second.build() == []
    manifest = manifest_of(second)
    assert manifest.banks["weak"].views == 3
    assert manifest.features == {"weak": ("embedding",), "strong": (ENERGY,)}
    assert prove(second) == 64


def test_views_that_another_added_stay_where_they_have_what_is_asked_for(
    first: TinyCache, second: TinyCache
) -> None:
    second.build()
    assert first.but(features={"weak": ("embedding",)}).build() == []
    assert manifest_of(first).banks["weak"].views == 3


def test_runs_that_began_with_an_earlier_manifest_find_what_it_promised(
    first: TinyCache, second: TinyCache
) -> None:
    place = open_place(first.uri)
    _, sha256 = read_manifest(place)
    second.build()
    kept, _ = read_manifest(place, sha256)
    assert kept.features["weak"] == (ENERGY, MAP)
    assert all(place.sizes()[record.file] == record.bytes for record in kept.shards)


def test_features_that_are_whole_stay_in_the_manifest_of_who_asks_for_none(first: TinyCache) -> None:
    before = read_manifest(open_place(first.uri))
    assert first.but(features={}, stated={}).build() == []
    assert read_manifest(open_place(first.uri)) == before


def test_another_part_is_still_refused_where_the_same_feature_is_asked_for(
    first: TinyCache, second: TinyCache
) -> None:
    with pytest.raises(CacheError, match=r"cache keeps as energy\.stage1 a, this experiment says b"):
        second.but(features={"weak": (ENERGY,)}).build()


def test_what_one_experiment_states_does_not_hide_what_another_finds(
    first: TinyCache, tmp_path: Path
) -> None:
    states = first.but(
        folder=tmp_path / "other", features={"weak": ("energy.stage2",)}, stated={"stage2": "b"}
    )
    finds = states.but(features={"weak": ("energy.stem",)}, stated={})
    for cache in (states, finds):
        cache.build(("weak",))
    assert manifest_of(finds).features == {"weak": ("energy.stage2", "energy.stem")}
    assert prove(states, ("weak",)) == prove(finds, ("weak",)) == 64


def test_what_another_teacher_was_prepared_with_is_neither_asked_nor_proved(
    first: TinyCache, tmp_path: Path
) -> None:
    """The embedding stands for a feature that only a prepared teacher gives."""
    prepared = first.but(
        folder=tmp_path / "prepared",
        features={"weak": ("embedding",)},
        prepared={"embedding": "prepared:aa"},
        stated={},
    )
    prepared.build(("weak",))
    place = open_place(prepared.uri)
    path = next(Path(prepared.uri).glob("_commits/weak-0000-00000.embedding.json"))
    bare = prepared.but(features={"weak": ("energy.stem",)}, prepared={})
    assert {shard.part for shard in bare.build(("weak",))} == {"energy.stem"}
    assert prove(bare, ("weak",)) == 64
    assert bare.open("bare", kept=bare.features).made_by == {}
    path.unlink()
    assert bare.but(views=MORE).build(("weak",))[0].part == "logits"
    assert manifest_of(bare).features == {"weak": ("energy.stem",)}
    assert read_record(place, ORIGIN, Origin).made_by == prepared.prepared  # type: ignore[union-attr]


def test_a_record_of_others_that_cannot_be_read_is_theirs_to_mend(
    first: TinyCache, second: TinyCache
) -> None:
    commit = Path(first.uri) / f"_commits/strong-0000-00000.{ENERGY}.json"
    commit.write_text("{")
    second.build()
    assert manifest_of(first).features == {"weak": ("embedding",)}
    with pytest.raises(CacheError, match=f"{ENERGY}.json is not a readable"):
        first.build()


def test_a_cache_that_lacks_what_a_run_keeps_is_refused_by_name(first: TinyCache, second: TinyCache) -> None:
    second.build()
    with pytest.raises(CacheError, match=rf"does not have {ENERGY} of weak, {MAP} of weak for all of"):
        first.open("refused", kept=first.features)


def test_a_plan_counts_what_is_asked_for_alone(first: TinyCache, second: TinyCache) -> None:
    place = open_place(first.uri)
    origin = agreed_origin(place, second.origin(("weak",)))
    plan = plan_shards(place, origin, {"weak": MORE.weak})
    assert origin.features == {"weak": ("embedding",)}
    assert origin.made_by == {}
    assert {shard.part for shard in plan.missing} == {"logits", "embedding"}
    assert {shard.view for shard in plan.missing if shard.part == "logits"} == {2}


def test_damage_to_what_others_keep_is_mended_by_leaving_it_to_them(
    first: TinyCache, second: TinyCache
) -> None:
    place, file = open_place(first.uri), f"_{ENERGY}/bank=strong/view=0000/shard-00001.parquet"
    (Path(first.uri) / file).write_bytes(b"PAR1")
    found = inspect_cache(place)
    assert [(finding.fault, finding.file) for finding in found.findings] == [(Fault.TRUNCATED, file)]
    withdraw(place, found)
    second.build()
    assert inspect_cache(place, deep=True).findings == ()
    assert manifest_of(first).features == {"weak": ("embedding",)}
    assert file in {shard.file for shard in first.build()}
    assert inspect_cache(place, deep=True).findings == ()


@pytest.mark.parametrize("lost", [MANIFEST, ORIGIN])
def test_a_stale_folder_is_published_again_without_what_left_its_manifest(
    first: TinyCache, second: TinyCache, lost: str
) -> None:
    second.build()
    place = open_place(first.uri)
    before = manifest_of(first)
    if lost == ORIGIN:
        place.remove(ORIGIN)
    else:
        shutil.rmtree(Path(first.uri) / "_manifests")
    publish_again(place, inspect_cache(place))
    assert manifest_of(first) == before
    assert inspect_cache(place, deep=True).findings == ()
    computed = first.but(views=MORE).build()
    assert {(shard.part, shard.view) for shard in computed} == {(ENERGY, 2), (MAP, 2)}


@pytest.mark.parametrize("kept", [{"weak": ("embedding",)}, {}])
def test_a_run_is_served_the_features_that_it_keeps_and_asks_the_teacher_for_others(
    first: TinyCache, kept: Features
) -> None:
    run = first.but(features=kept)
    run.build()
    assert MAP in manifest_of(run).features["weak"]
    online = OnlineTeacher(run.live(), VIEWS)
    source = CacheBesideTeacher(run.open("run", kept=kept), lambda: online)
    said = TeacherAnswers(source, VIEWS, CPU, budget_bytes=1 << 20)
    served = said.answers("weak", 0, ROWS, (MAP,)).features[MAP]
    live = run.live().answers(VIEWS.weak.recipe, 0, ROWS, (MAP,)).features[MAP]
    assert torch.allclose(served, live, rtol=1e-5, atol=1e-6)
    assert not torch.equal(served, served.half().float())  # what the cache keeps is fp16
    assert said.shapes("weak", (MAP,)) == {MAP: (4, 8, 8)}
    alone = TeacherAnswers(run.open("alone", kept=kept), VIEWS, CPU, budget_bytes=1 << 20)
    with pytest.raises(
        CacheError, match="the cache does not keep stage1 of the teacher, and none runs beside"
    ):
        alone.answers("weak", 0, ROWS, (MAP,))


def test_a_classifier_that_a_run_does_not_keep_is_not_shown(first: TinyCache) -> None:
    cache = first.but(features={"teacher": ("classifier",)})
    cache.build()
    assert cache.open("shown", kept=cache.features).classifier() is not None
    assert cache.open("hidden", kept={}).classifier() is None


def test_the_classifier_does_not_decide_how_features_are_kept(first: TinyCache, tmp_path: Path) -> None:
    judged = first.but(
        folder=tmp_path / "judged", features={"teacher": ("classifier",)}, stated={}, rows_per_map=2048
    )
    judged.build()
    featured = judged.but(
        features={"weak": ("stem", "embedding")}, feature_precision=FeaturePrecision.FP32, rows_per_map=5
    )
    computed = featured.build()
    assert max(shard.rows for shard in computed if shard.part == "stem") == 5
    assert manifest_of(featured).feature_precision is FeaturePrecision.FP32
    assert manifest_of(featured).features["teacher"] == ("classifier",)
    assert judged.build() == []
    assert manifest_of(featured).feature_precision is FeaturePrecision.FP32
    with pytest.raises(CacheError, match="cache keeps features as fp32, this experiment asks for fp16"):
        featured.but(feature_precision=FeaturePrecision.FP16).build()


def test_small_features_do_not_decide_how_many_rows_a_map_has_in_a_file(
    first: TinyCache, tmp_path: Path
) -> None:
    small = first.but(
        folder=tmp_path / "small", features={"weak": ("embedding",)}, stated={}, rows_per_map=2048
    )
    small.build()
    mapped = small.but(features={"weak": ("stem",)}, rows_per_map=5)
    assert max(shard.rows for shard in mapped.build()) == 5
    assert mapped.but(rows_per_map=7).build() == []
    assert json.loads((Path(small.uri) / ORIGIN).read_text())["rows_per_map"] == 5
