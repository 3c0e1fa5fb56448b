from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from tests.unit.trainables.cache.tiny_caches import EMBEDDED, TinyCache
from trainables.cache.format.manifest import DamagedCache, discard_shards, read_manifest
from trainables.cache.format.storage import open_place
from trainables.config import ModelConfig, ModelName
from trainables.errors import CacheError
from trainables.models import build_model
from trainables.models.embedding import (
    classifier_of,
    embedding_width_of,
)
from trainables.teacher.live import LiveTeacher


class Counting(nn.Module):
    """Counts the images that go through."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.images = 0

    def forward(self, images: Tensor) -> Tensor:
        self.images += len(images)
        logits: Tensor = self.network(images)
        return logits


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 5)

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        logits: Tensor = self.head(flat) + self.head(flat.flip(1))
        return logits


def files_of(folder: str) -> dict[str, bytes]:
    """Every file of the cache that holds teacher's answers or their records."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.suffix == ".parquet" or path.parent.name == "_commits"
    }


def test_the_embedding_is_what_the_classifier_is_given(tiny: TinyCache) -> None:
    kitchen = tiny.but(features=EMBEDDED)
    kitchen.build()
    rows = torch.tensor([39, 0, 17, 0])
    signal = kitchen.open().signal("weak", 1, rows, ("embedding",))
    assert "embedding" in signal.features
    assert signal.features["embedding"].shape == (4, 288)
    assert signal.features["embedding"].dtype == torch.float32
    live = LiveTeacher(tiny.teacher, tiny.data, seed=tiny.seed, batch_size=64, device=torch.device("cpu"))
    answers = live.answers(tiny.views.weak.recipe, 1, rows, ("embedding",))
    torch.testing.assert_close(
        signal.features["embedding"], answers.features["embedding"], atol=1e-3, rtol=1e-3
    )
    with torch.inference_mode():
        logits = classifier_of(tiny.teacher, 5)(answers.features["embedding"])
    torch.testing.assert_close(logits, answers.logits_BC, atol=1e-5, rtol=1e-5)


def test_a_cache_without_embeddings_says_so(tiny: TinyCache) -> None:
    tiny.build()
    reader = tiny.open()
    assert reader.features("weak") == ()
    with pytest.raises(CacheError, match=r"has no feature 'embedding' of bank weak \(it has none\); name it"):
        reader.signal("weak", 0, torch.arange(3), ("embedding",))
    assert reader.manifest.embedding_width is None


def test_growing_by_the_embedding_computes_its_files_alone_and_alters_no_other(tiny: TinyCache) -> None:
    tiny.build()
    before, first = files_of(tiny.uri), read_manifest(open_place(tiny.uri))[0]
    computed = tiny.but(features=EMBEDDED).build()
    assert len(computed) == 9
    assert {shard.part for shard in computed} == {"embedding"}
    after, second = files_of(tiny.uri), read_manifest(open_place(tiny.uri))[0]
    assert before.items() <= after.items()
    assert {Path(name).parts[0] for name in after.keys() - before.keys()} == {"_embedding", "_commits"}
    logits = [record for record in second.shards if record.shard.part == "logits"]
    assert logits == list(first.shards)
    assert (second.rows, second.embedding_width) == (first.rows, 288)
    assert second.bytes == sum(len(data) for name, data in after.items() if name.endswith(".parquet"))


def test_logits_and_embeddings_of_the_same_rows_take_one_pass_of_the_teacher(tiny: TinyCache) -> None:
    teacher = Counting(tiny.teacher)
    tiny.but(teacher=teacher, features=EMBEDDED).build()
    assert teacher.images == 120


def test_who_does_not_ask_for_embeddings_computes_none_and_leaves_those_that_are_there(
    tiny: TinyCache,
) -> None:
    tiny.but(features=EMBEDDED).build()
    assert tiny.build() == []
    views = tiny.views.with_overrides(weak=tiny.views.weak.with_overrides(views=3))
    computed = tiny.but(views=views).build()
    assert {(shard.view, shard.part) for shard in computed} == {(2, "logits")}
    lacking = tiny.but(features=EMBEDDED, views=views).build()
    assert {(shard.view, shard.part) for shard in lacking} == {(2, "embedding")}


def test_the_files_open_as_arrays_and_readers_of_the_folder_see_logits_alone(tiny: TinyCache) -> None:
    tiny.but(features=EMBEDDED).build()
    frame = pd.read_parquet(Path(tiny.uri) / "_embedding")
    assert len(frame) == 120
    assert set(frame.columns) == {"sample_id", "embedding", "bank", "view"}
    assert frame["embedding"].iloc[0].dtype == np.float16
    assert frame["embedding"].iloc[0].shape == (288,)
    whole = pd.read_parquet(tiny.uri)
    assert len(whole) == 120
    assert "embedding" not in whole.columns


def test_a_damaged_file_of_embeddings_is_named_and_rebuilt_alone(tiny: TinyCache) -> None:
    kitchen = tiny.but(features=EMBEDDED)
    kitchen.build()
    path = Path(tiny.uri) / "_embedding/bank=weak/view=0001/shard-00002.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedCache, match=r"_embedding/.*shard-00002.parquet was altered") as raised:
        kitchen.open().signal("weak", 1, torch.arange(3), ("embedding",))
    discard_shards(open_place(tiny.uri), raised.value.shards)
    assert [shard.file for shard in kitchen.build()] == [str(path.relative_to(tiny.uri))]


def test_a_teacher_without_a_linear_classifier_is_refused(tiny: TinyCache) -> None:
    teacher = nn.Sequential(nn.Conv2d(1, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(CacheError, match=r"Sequential has no feature 'embedding'; it has stem, first_conv"):
        tiny.but(teacher=teacher, features=EMBEDDED).build()


def test_a_classifier_that_runs_twice_is_refused(tiny: TinyCache) -> None:
    with pytest.raises(CacheError, match=r"given inputs of shapes \[\(7, 64\), \(7, 64\)\] for 7 images"):
        tiny.but(teacher=Twice(), features=EMBEDDED).build()


def test_embeddings_that_float16_cannot_hold_are_counted_and_refused(tiny: TinyCache) -> None:
    layer = nn.Linear(64, 5)
    nn.init.normal_(layer.weight, std=1e-6)
    teacher = nn.Sequential(nn.Flatten(), nn.Hardtanh(-1, 1), Scaled(), layer)
    message = (
        r"bank \w+, view 0: values of embedding are not finite in fp16 in \d+ of \d+ rows \(sample ids .*fp32"
    )
    with pytest.raises(CacheError, match=message):
        tiny.but(teacher=teacher, features=EMBEDDED).build()


class Scaled(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values * 1e5


ONE_OF_EACH_FAMILY = {
    "mlp": ModelConfig(name=ModelName.MLP),
    "convnet": ModelConfig(name=ModelName.CONVNET),
    "resnet8": ModelConfig(name=ModelName.RESNET8),
    "resnet8x4": ModelConfig(name=ModelName.RESNET8X4),
    "wrn": ModelConfig(name=ModelName.WRN_16_1),
    "vgg": ModelConfig(name=ModelName.VGG8),
    "mobilenetv2": ModelConfig(name=ModelName.MOBILENETV2),
    "shufflenetv2": ModelConfig(name=ModelName.SHUFFLENETV2),
    # As many units before the classifier as classes: the linear layer is not the one that is meant.
    "cosine head": ModelConfig(name=ModelName.MLP, cosine_head=7),
}


@pytest.mark.parametrize("family", ONE_OF_EACH_FAMILY)
def test_every_family_of_networks_has_an_embedding(family: str) -> None:
    model = build_model(ONE_OF_EACH_FAMILY[family], n_classes=7, in_channels=3).eval()
    layer, inputs = classifier_of(model, 7), list[Tensor]()
    layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    with torch.inference_mode():
        logits = model(torch.zeros(2, 3, 32, 32))
        (embedding,) = inputs
        assert embedding.shape == (2, embedding_width_of(model, 7))
        torch.testing.assert_close(layer(embedding), logits)
