from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.unit.trainables.cache.tiny_caches import EMBEDDED, TinyCache
from trainables.cache.format.manifest import DamagedCache
from trainables.config import BankConfig, Precision, ViewsConfig
from trainables.data import TrainingData
from trainables.errors import CacheError
from trainables.teacher.alignment_proof import ProofSummary, prove_alignment


class Flipped(nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values.flip(1)


class PlusOne(nn.Module):
    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits + 1


def with_images(data: TrainingData, images: torch.Tensor) -> TrainingData:
    return replace(data, train=replace(data.train, images=images))


def prove(tiny: TinyCache, **changes: Any) -> ProofSummary:
    return prove_alignment(
        tiny.open(),
        tiny.data,
        changes.get("teacher", tiny.teacher),
        changes.get("views", tiny.views),
        tiny.seed,
    )


@pytest.mark.parametrize("precision", list(Precision))
def test_a_faithful_cache_is_proved(tiny: TinyCache, precision: Precision) -> None:
    tiny.but(precision=precision).build()
    summary = prove(tiny)
    bounds = {Precision.FP32: 1e-5, Precision.FP16: 2e-3, Precision.INT8: 1e-2, Precision.TOPK: 2e-3}
    assert summary.pairs == 64
    assert 0 <= summary.largest_difference < bounds[precision]
    assert {bank: len(shares) for bank, shares in summary.accuracy.items()} == {"strong": 1, "weak": 2}
    manifest = tiny.open().manifest
    assert summary.accuracy["weak"][1] == manifest.correct("weak", 1) / 40


def test_a_teacher_left_in_training_mode_is_proved_all_the_same(tiny: TinyCache) -> None:
    tiny.build()
    tiny.teacher.train()
    prove(tiny)


def test_shifted_ids_are_refused(tiny: TinyCache) -> None:
    train = tiny.data.train
    tiny.but(data=replace(tiny.data, train=replace(train, ids=train.ids + 3))).build()
    message = (
        r"do not cover the training split exactly once \(1 missing, 1 foreign; row 0: sample 4 instead of 1"
    )
    with pytest.raises(CacheError, match=message):
        prove(tiny)


def test_shuffled_rows_are_refused(tiny: TinyCache) -> None:
    tiny.but(data=with_images(tiny.data, tiny.data.train.images[:].roll(1, 0))).build()
    with pytest.raises(
        CacheError, match=r"rows of .* are not what the live teacher says .*bank \w+, view \d, sample"
    ):
        prove(tiny)


def test_mirrored_views_are_refused(tiny: TinyCache) -> None:
    tiny.but(data=with_images(tiny.data, tiny.data.train.images[:].flip(3))).build()
    with pytest.raises(CacheError, match=r"are not what the live teacher says"):
        prove(tiny)


def test_views_of_another_seed_are_refused(tiny: TinyCache) -> None:
    tiny.but(seed=8).build()
    with pytest.raises(CacheError, match=r"are not what the live teacher says"):
        prove(tiny)


def test_embeddings_of_another_layer_are_refused_and_good_ones_proved(tiny: TinyCache) -> None:
    kitchen = tiny.but(features=EMBEDDED)
    kitchen.build()
    prove(kitchen)
    for path in (Path(tiny.uri) / "_commits").glob("*.embedding.json"):
        path.unlink()
    *body, last = tiny.teacher.children()
    assert isinstance(last, nn.Linear)
    mirrored = nn.Linear(288, 5)
    mirrored.load_state_dict({"weight": last.weight.flip(1), "bias": last.bias})
    kitchen.but(teacher=nn.Sequential(*body, Flipped(), mirrored)).build()  # gives the same logits
    message = r"6\d of 64 rows .*\(largest difference: bank \w+, view \d, sample \d+: embedding \d"
    with pytest.raises(CacheError, match=message):
        prove_alignment(
            kitchen.open("again"), tiny.data, tiny.teacher, tiny.views, tiny.seed, banks=("weak", "strong")
        )


@pytest.mark.parametrize("precision", list(Precision))
def test_another_teacher_is_refused_and_at_most_five_rows_named(
    tiny: TinyCache, other_teacher: nn.Module, precision: Precision
) -> None:
    tiny.but(precision=precision).build()
    with pytest.raises(
        CacheError, match=r"64 of 64 rows .*…\); the cache belongs to another teacher"
    ) as raised:
        prove(tiny, teacher=other_teacher)
    assert str(raised.value).count("sample ") == 5


def test_an_offset_of_all_logits_is_refused_although_fp16_drops_it(tiny: TinyCache) -> None:
    tiny.build()
    with pytest.raises(CacheError, match=r"are not what the live teacher says"):
        prove(tiny, teacher=nn.Sequential(tiny.teacher, PlusOne()))


def test_labels_of_other_samples_are_refused(tiny: TinyCache) -> None:
    train = tiny.data.train
    tiny.but(data=replace(tiny.data, train=replace(train, labels=(train.labels + 1) % 5))).build()
    with pytest.raises(CacheError, match=r"40 labels in the cache .*\(sample ids 1, 4, 7, 10, 13\)"):
        prove(tiny)


def test_an_accuracy_that_is_not_the_recorded_one_is_refused(tiny: TinyCache) -> None:
    tiny.build(("weak",))
    path = next((Path(tiny.uri) / "_commits").glob("weak-0001-00000.json"))
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "correct": record["correct"] + 1}))
    tiny.build(("weak",))
    with pytest.raises(
        CacheError, match=r"bank weak, view 1: the teacher is right on .* but on .* by its records"
    ):
        prove_alignment(tiny.open(), tiny.data, tiny.teacher, tiny.views, tiny.seed, banks=["weak"])


def test_another_recipe_is_refused(tiny: TinyCache) -> None:
    tiny.build()
    views = tiny.views.with_overrides(weak=BankConfig(views=2))
    with pytest.raises(CacheError, match=r"shows bank weak by recipe"):
        prove(tiny, views=views)


def test_too_few_views_are_refused(tiny: TinyCache) -> None:
    tiny.build()
    views = tiny.views.with_overrides(weak=tiny.views.weak.with_overrides(views=5))
    with pytest.raises(CacheError, match=r"has 2 views of bank weak, this experiment uses 5"):
        prove(tiny, views=views)


def test_banks_that_the_experiment_does_not_use_are_not_asked_about(tiny: TinyCache) -> None:
    tiny.build()
    views = ViewsConfig(weak=tiny.views.weak)
    summary = prove_alignment(tiny.open(), tiny.data, tiny.teacher, views, tiny.seed, banks=["weak"])
    assert list(summary.accuracy) == ["weak"]


def test_a_damaged_file_stops_the_proof(tiny: TinyCache) -> None:
    tiny.build()
    next(Path(tiny.uri).rglob("*.parquet")).write_bytes(b"")
    with pytest.raises(DamagedCache):
        prove(tiny)


def test_a_teacher_without_one_logit_per_class_is_refused(tiny: TinyCache) -> None:
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 7))
    with pytest.raises(CacheError, match=r"shape \(7, 7\) for 7 images; logits of shape \(7, 5\) are needed"):
        tiny.but(teacher=teacher).build()
