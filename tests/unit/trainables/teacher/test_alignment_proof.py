from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.unit.trainables.cache.lab import CacheLab
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


def prove(lab: CacheLab, **changes: Any) -> ProofSummary:
    return prove_alignment(
        lab.open(), lab.data, changes.get("teacher", lab.teacher), changes.get("views", lab.views), lab.seed
    )


@pytest.mark.parametrize("precision", list(Precision))
def test_a_faithful_cache_is_proved(lab: CacheLab, precision: Precision) -> None:
    lab.but(precision=precision).build()
    summary = prove(lab)
    bounds = {Precision.FP32: 1e-5, Precision.FP16: 2e-3, Precision.INT8: 1e-2, Precision.TOPK: 2e-3}
    assert summary.pairs == 64
    assert 0 <= summary.largest_difference < bounds[precision]
    assert {bank: len(shares) for bank, shares in summary.accuracy.items()} == {"strong": 1, "weak": 2}
    manifest = lab.open().manifest
    assert summary.accuracy["weak"][1] == manifest.correct("weak", 1) / 40


def test_a_teacher_left_in_training_mode_is_proved_all_the_same(lab: CacheLab) -> None:
    lab.build()
    lab.teacher.train()
    prove(lab)


def test_shifted_ids_are_refused(lab: CacheLab) -> None:
    train = lab.data.train
    lab.but(data=replace(lab.data, train=replace(train, ids=train.ids + 3))).build()
    message = (
        r"do not cover the training split exactly once \(1 missing, 1 foreign; row 0: sample 4 instead of 1"
    )
    with pytest.raises(CacheError, match=message):
        prove(lab)


def test_shuffled_rows_are_refused(lab: CacheLab) -> None:
    lab.but(data=with_images(lab.data, lab.data.train.images[:].roll(1, 0))).build()
    with pytest.raises(
        CacheError, match=r"rows of .* are not what the live teacher says .*bank \w+, view \d, sample"
    ):
        prove(lab)


def test_mirrored_views_are_refused(lab: CacheLab) -> None:
    lab.but(data=with_images(lab.data, lab.data.train.images[:].flip(3))).build()
    with pytest.raises(CacheError, match=r"are not what the live teacher says"):
        prove(lab)


def test_views_of_another_seed_are_refused(lab: CacheLab) -> None:
    lab.but(seed=8).build()
    with pytest.raises(CacheError, match=r"are not what the live teacher says"):
        prove(lab)


def test_embeddings_of_another_layer_are_refused_and_good_ones_proved(lab: CacheLab) -> None:
    kitchen = lab.but(embedding=True)
    kitchen.build()
    prove(kitchen)
    for path in (Path(lab.uri) / "_commits").glob("*.embedding.json"):
        path.unlink()
    *body, last = lab.teacher.children()
    assert isinstance(last, nn.Linear)
    mirrored = nn.Linear(288, 5)
    mirrored.load_state_dict({"weight": last.weight.flip(1), "bias": last.bias})
    kitchen.but(teacher=nn.Sequential(*body, Flipped(), mirrored)).build()  # gives the same logits
    message = r"6\d of 64 rows .*\(largest difference: bank \w+, view \d, sample \d+: embedding \d"
    with pytest.raises(CacheError, match=message):
        prove_alignment(
            kitchen.open("again"), lab.data, lab.teacher, lab.views, lab.seed, banks=("weak", "strong")
        )


@pytest.mark.parametrize("precision", list(Precision))
def test_another_teacher_is_refused_and_at_most_five_rows_named(
    lab: CacheLab, other_teacher: nn.Module, precision: Precision
) -> None:
    lab.but(precision=precision).build()
    with pytest.raises(
        CacheError, match=r"64 of 64 rows .*…\); the cache belongs to another teacher"
    ) as raised:
        prove(lab, teacher=other_teacher)
    assert str(raised.value).count("sample ") == 5


def test_an_offset_of_all_logits_is_refused_although_fp16_drops_it(lab: CacheLab) -> None:
    lab.build()
    with pytest.raises(CacheError, match=r"are not what the live teacher says"):
        prove(lab, teacher=nn.Sequential(lab.teacher, PlusOne()))


def test_labels_of_other_samples_are_refused(lab: CacheLab) -> None:
    train = lab.data.train
    lab.but(data=replace(lab.data, train=replace(train, labels=(train.labels + 1) % 5))).build()
    with pytest.raises(CacheError, match=r"40 labels in the cache .*\(sample ids 1, 4, 7, 10, 13\)"):
        prove(lab)


def test_an_accuracy_that_is_not_the_recorded_one_is_refused(lab: CacheLab) -> None:
    lab.build(("weak",))
    path = next((Path(lab.uri) / "_commits").glob("weak-0001-00000.json"))
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "correct": record["correct"] + 1}))
    lab.build(("weak",))
    with pytest.raises(
        CacheError, match=r"bank weak, view 1: the teacher is right on .* but on .* by its records"
    ):
        prove_alignment(lab.open(), lab.data, lab.teacher, lab.views, lab.seed, banks=["weak"])


def test_another_recipe_is_refused(lab: CacheLab) -> None:
    lab.build()
    views = lab.views.with_overrides(weak=BankConfig(views=2))
    with pytest.raises(CacheError, match=r"shows bank weak by recipe"):
        prove(lab, views=views)


def test_too_few_views_are_refused(lab: CacheLab) -> None:
    lab.build()
    views = lab.views.with_overrides(weak=lab.views.weak.with_overrides(views=5))
    with pytest.raises(CacheError, match=r"has 2 views of bank weak, this experiment uses 5"):
        prove(lab, views=views)


def test_banks_that_the_experiment_does_not_use_are_not_asked_about(lab: CacheLab) -> None:
    lab.build()
    views = ViewsConfig(weak=lab.views.weak)
    summary = prove_alignment(lab.open(), lab.data, lab.teacher, views, lab.seed, banks=["weak"])
    assert list(summary.accuracy) == ["weak"]


def test_a_damaged_file_stops_the_proof(lab: CacheLab) -> None:
    lab.build()
    next(Path(lab.uri).rglob("*.parquet")).write_bytes(b"")
    with pytest.raises(DamagedCache):
        prove(lab)


def test_a_teacher_without_one_logit_per_class_is_refused(lab: CacheLab) -> None:
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 7))
    with pytest.raises(CacheError, match=r"shape \(7, 7\) for 7 images; logits of shape \(7, 5\) are needed"):
        lab.but(teacher=teacher).build()
