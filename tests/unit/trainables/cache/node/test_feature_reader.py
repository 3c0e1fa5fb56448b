"""Features are kept part by part, converted when they are asked for, and gathered like logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.unit.trainables.cache.tiny_caches import TinyCache, random_data, tiny_teacher
from trainables.cache.format.manifest import DamagedCache, discard_shards, read_manifest
from trainables.cache.format.storage import open_place
from trainables.config import Precision
from trainables.config.cache import FeaturePrecision
from trainables.data.splits import split_facts
from trainables.errors import CacheError
from trainables.models.embedding import classifier_of
from trainables.teacher.online import OnlineTeacher

MAP, ENERGY = "stage1", "energy.stage1"
ALL = ("embedding", MAP, ENERGY)
KEPT = {"weak": ALL, "strong": ("embedding",), "teacher": ("classifier",)}
ROWS = torch.tensor([39, 0, 17, 0])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> TinyCache:
    """All in fp32, and asked about one sample at a time, so that no batch can make the sums differ."""
    data = random_data()
    tiny = TinyCache(tmp_path_factory.mktemp("built"), data, tiny_teacher().eval(), split_facts(data))
    kitchen = tiny.named().but(
        features=KEPT,
        precision=Precision.FP32,
        feature_precision=FeaturePrecision.FP32,
        batch_size=1,
        rows_per_map=6,
    )
    kitchen.build()
    return kitchen


@pytest.fixture
def kitchen(built: TinyCache, tmp_path: Path) -> TinyCache:
    """A copy of that cache."""
    return built.copied(tmp_path)


@pytest.mark.parametrize("view", [0, 1])
def test_in_fp32_the_cache_says_to_the_bit_what_the_teacher_says(kitchen: TinyCache, view: int) -> None:
    online = OnlineTeacher(kitchen.live(), kitchen.views)
    kept = kitchen.open().signal("weak", view, ROWS, ALL)
    said = online.signal("weak", view, ROWS, ALL)
    assert torch.equal(kept.logits_BC, said.logits_BC)
    assert set(kept.features) == set(said.features) == set(ALL)
    for name in ALL:
        assert torch.equal(kept.features[name], said.features[name]), name
    torch.testing.assert_close(kept.features[ENERGY], kept.features[MAP].square().mean(1))
    assert kept.features[MAP].shape == (4, 8, 6, 6)
    assert kept.features[MAP].abs().max() > 0


def test_of_what_is_asked_about_images_the_teacher_says_the_same(kitchen: TinyCache) -> None:
    online = OnlineTeacher(kitchen.live(), kitchen.views)
    images = (kitchen.data.train.images[:] / 255 - 0.5) / 0.25
    bare = kitchen.but(views=kitchen.views.with_overrides(weak={"recipe": [], "views": 1}))
    said = online.signal_about(images, torch.arange(40), ALL)
    other = OnlineTeacher(bare.live(), bare.views).signal("weak", 0, torch.arange(40), ALL)
    for name in ALL:
        torch.testing.assert_close(said.features[name], other.features[name])


def test_the_classifier_is_the_teachers_to_the_bit(kitchen: TinyCache) -> None:
    layer = classifier_of(kitchen.teacher, 5)
    kept = kitchen.open().classifier()
    assert kept is not None
    assert torch.equal(kept.weight_CD, layer.weight)
    assert torch.equal(kept.bias_C, layer.get_parameter("bias"))
    assert OnlineTeacher(kitchen.live(), kitchen.views).classifier().weight_CD.shape == (5, 288)


def test_a_cache_without_the_classifier_has_none(tiny: TinyCache) -> None:
    tiny.build()
    assert tiny.open().classifier() is None


def test_half_precision_is_the_default_and_near(tiny: TinyCache) -> None:
    kitchen = tiny.named().but(features=KEPT, batch_size=1)
    kitchen.build()
    reader = kitchen.open()
    kept = reader.signal("weak", 1, ROWS, ALL)
    said = OnlineTeacher(kitchen.live(), kitchen.views).signal("weak", 1, ROWS, ALL)
    for name in ALL:
        assert torch.equal(kept.features[name], said.features[name].half().float())
    assert reader.whole_feature("weak", 1, MAP).dtype == torch.float16


def test_features_are_told_by_bank_with_their_shapes(kitchen: TinyCache) -> None:
    reader = kitchen.open()
    assert reader.features("weak") == ALL
    assert reader.features("strong") == ("embedding",)
    assert reader.feature_shapes("weak") == {"embedding": (288,), MAP: (8, 6, 6), ENERGY: (6, 6)}
    assert list(reader.banks) == ["strong", "weak"]
    with pytest.raises(
        CacheError, match=r"has no feature 'stage1' of bank strong \(embedding\); name it in cache\.features"
    ):
        reader.signal("strong", 0, ROWS, (MAP,))


def test_only_what_is_asked_for_is_converted_and_gathered(kitchen: TinyCache) -> None:
    reader = kitchen.open()
    scratch = kitchen.folder / "scratch"
    assert dict(reader.signal("weak", 0, ROWS).features) == {}
    assert {path.name for path in scratch.iterdir() if path.is_dir()} == {"weak"}
    assert reader.view_bytes("weak", 0, MAP) == 40 * 8 * 6 * 6 * 4
    assert {path.name for path in scratch.iterdir() if path.is_dir()} == {"weak"}
    assert set(reader.signal("weak", 0, ROWS, (MAP,)).features) == {MAP}
    assert {path.name for path in scratch.iterdir() if path.is_dir()} == {"weak", "_stage1-weak"}


def test_a_whole_feature_is_a_copy_that_says_what_a_batch_says(kitchen: TinyCache) -> None:
    reader = kitchen.open()
    for name in ALL:
        whole = reader.whole_feature("weak", 1, name)
        assert whole.nbytes == reader.view_bytes("weak", 1, name)
        assert torch.equal(whole[ROWS], reader.signal("weak", 1, ROWS, (name,)).features[name])
    whole.zero_()
    assert reader.signal("weak", 1, ROWS, (name,)).features[name].abs().sum() > 0


def test_whole_maps_lie_in_files_of_fewer_rows_and_take_no_further_pass(kitchen: TinyCache) -> None:
    manifest, _ = read_manifest(open_place(kitchen.uri))
    rows = [record.shard.rows for record in manifest.shards_of("weak", 1, MAP)]
    assert rows == [6, 6, 4, 6, 6, 4, 6, 2]  # each of logits has its own
    assert [record.shard.rows for record in manifest.shards_of("weak", 1, ENERGY)] == [16, 16, 8]
    assert manifest.rows == 120


def test_a_damaged_file_of_a_map_is_named_and_rebuilt_alone(kitchen: TinyCache) -> None:
    path = Path(kitchen.uri) / "_stage1/bank=weak/view=0001/shard-00002.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    reader = kitchen.open()
    reader.signal("weak", 1, ROWS, ("embedding",))  # is of other files
    with pytest.raises(DamagedCache, match=r"_stage1/.*shard-00002.parquet was altered") as raised:
        reader.signal("weak", 1, ROWS, (MAP,))
    discard_shards(open_place(kitchen.uri), raised.value.shards)
    assert [shard.file for shard in kitchen.build()] == [str(path.relative_to(kitchen.uri))]


def test_features_that_are_kept_in_another_precision_are_refused(kitchen: TinyCache) -> None:
    with pytest.raises(CacheError, match="cache keeps features as fp32, this experiment asks for fp16"):
        kitchen.but(feature_precision=FeaturePrecision.FP16).build()
    assert kitchen.but(features={}, feature_precision=FeaturePrecision.FP16).build() == []
