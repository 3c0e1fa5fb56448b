"""A cache holds the answers to unlabelled images behind those to the training split, and they are proved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.unit.trainables.cache.tiny_caches import TinyCache
from tests.unit.trainables.unlabelled_splits import noise, with_unlabelled
from trainables.cache.format.manifest import read_manifest
from trainables.cache.format.parquet import read_shard
from trainables.cache.format.storage import open_place
from trainables.cache.tools.sample_picture import views_of_sample
from trainables.cache.tools.statistics import bank_figures
from trainables.config import BankConfig, Precision, ViewsConfig
from trainables.config.views import MixupStep
from trainables.data.splits import FIRST_UNLABELLED_ID, split_facts
from trainables.errors import CacheError
from trainables.teacher.alignment_proof import ProofSummary, prove_alignment
from trainables.views.showing import show, show_any

N_TRAIN, N_OWN = 40, 30


def beside(tiny: TinyCache) -> TinyCache:
    data = with_unlabelled(tiny.data, noise(N_OWN))
    return tiny.but(data=data, facts=split_facts(data), precision=Precision.FP32)


def prove(cache: TinyCache) -> ProofSummary:
    return prove_alignment(cache.open(), cache.data, cache.teacher, cache.views, cache.seed)


def test_answers_to_unlabelled_images_stand_behind_those_of_the_training_split(tiny: TinyCache) -> None:
    cache = beside(tiny)
    cache.build()
    reader = cache.open()
    assert reader.manifest.n_rows == N_TRAIN + N_OWN
    assert reader.ids.tolist()[N_TRAIN:] == [FIRST_UNLABELLED_ID + 2 * n for n in range(N_OWN)]
    arrays = reader.arrays("weak")
    assert (arrays.labels[:, N_TRAIN:] == -1).all()
    rows = torch.tensor([N_TRAIN + 4, 3, N_TRAIN - 1, N_TRAIN, 0, N_TRAIN + N_OWN - 1])
    live = cache.live().logits(cache.views.weak.recipe, 1, rows)
    assert torch.equal(reader.signal("weak", 1, rows).logits_BC, live)
    tiny.but(at=str(tiny.folder / "alone"), precision=Precision.FP32).build()
    alone = tiny.but(at=str(tiny.folder / "alone")).open("alone-scratch")
    labelled = torch.arange(N_TRAIN)
    ours = reader.signal("weak", 0, labelled).logits_BC
    torch.testing.assert_close(ours, alone.signal("weak", 0, labelled).logits_BC, atol=1e-5, rtol=0)


def test_the_proof_asks_about_both_kinds_and_the_accuracy_is_of_the_labelled_ones(tiny: TinyCache) -> None:
    cache = beside(tiny)
    cache.build()
    summary = prove(cache)
    assert summary.pairs == 64
    right = cache.open().manifest.correct("weak", 0)
    assert summary.accuracy["weak"][0] == right / N_TRAIN


def test_other_unlabelled_images_are_not_proved(tiny: TinyCache) -> None:
    cache = beside(tiny)
    cache.build()
    other = with_unlabelled(tiny.data, noise(N_OWN, seed=10))
    with pytest.raises(CacheError, match=rf"of 64 rows .*sample {FIRST_UNLABELLED_ID // 10**6}"):
        prove(cache.but(data=other))


def test_a_cache_of_other_unlabelled_images_or_none_is_refused(tiny: TinyCache) -> None:
    cache = beside(tiny)
    cache.build()
    with pytest.raises(CacheError, match="unlabelled images 88888888…, this experiment uses no unlabelled"):
        tiny.but(precision=Precision.FP32).build()


def test_a_cache_without_unlabelled_images_is_known_as_before(tiny: TinyCache) -> None:
    identity = tiny.origin(("weak",)).identity
    assert "unlabelled" not in identity.plain()
    assert identity.digest() == "93b8ef5778178289220b4e8178db95d85952bf7a8c4f863f2c2e434fe6585658"


def test_figures_of_a_bank_leave_unlabelled_rows_out_of_the_accuracy(tiny: TinyCache) -> None:
    cache = beside(tiny)
    cache.build()
    place = open_place(cache.uri)
    manifest, _ = read_manifest(place)
    figures = {bank.bank: bank for bank in bank_figures(place, manifest)}
    view = figures["weak"].views[0]
    assert (view.rows, view.unlabelled) == (N_TRAIN + N_OWN, N_OWN)
    assert view.accuracy == manifest.correct("weak", 0) / N_TRAIN
    assert view.plain()["unlabelled"] == N_OWN


def test_a_file_says_which_rows_have_no_label(tiny: TinyCache) -> None:
    cache = beside(tiny)
    cache.build()
    place = open_place(cache.uri)
    manifest, _ = read_manifest(place)
    tables = [read_shard(place.read(record.file)) for record in manifest.shards_of("weak", 0)]
    labels = np.concatenate([table.column("label").to_numpy() for table in tables])
    ids = np.concatenate([table.column("sample_id").to_numpy() for table in tables])
    assert np.array_equal(labels < 0, ids >= FIRST_UNLABELLED_ID)


def test_an_unlabelled_sample_can_be_looked_at(tiny: TinyCache) -> None:
    cache = beside(tiny)
    cache.build()
    place = open_place(cache.uri)
    manifest, _ = read_manifest(place)
    sample = FIRST_UNLABELLED_ID + 6
    shown = views_of_sample(place, manifest, cache.data, cache.views, sample=sample, seed=cache.seed)
    assert len(shown) == 3
    wanted = show_any(
        cache.data.parts,
        torch.tensor([N_TRAIN + 3]),
        cache.views.weak.recipe,
        seed=cache.seed,
        view=0,
        device=torch.device("cpu"),
    )
    weak = next(view for view in shown if (view.bank, view.view) == ("weak", 0))
    assert np.array_equal(weak.image_HWC, wanted[0].permute(1, 2, 0).numpy())


def test_mixed_images_have_partners_of_their_own_kind(tiny: TinyCache) -> None:
    black = replace(tiny.data.train, images=torch.zeros_like(tiny.data.train.images[:]))
    white = torch.full((N_OWN, 1, 8, 8), 255, dtype=torch.uint8)
    data = with_unlabelled(replace(tiny.data, train=black), white)
    views = ViewsConfig(weak=BankConfig(recipe=(MixupStep(op="mixup"),), views=1))
    rows = torch.arange(N_TRAIN + N_OWN).flip(0)
    shown = show_any(data.parts, rows, views.weak.recipe, seed=1, view=0, device=torch.device("cpu"))
    assert (shown[:N_OWN] == 255).all()
    assert (shown[N_OWN:] == 0).all()


def test_a_row_is_shown_as_its_own_part_shows_it(tiny: TinyCache) -> None:
    cache = beside(tiny)
    rows = torch.tensor([60, 2, 41, 39])
    recipe, cpu = cache.views.strong.recipe, torch.device("cpu")
    shown = show_any(cache.data.parts, rows, recipe, seed=7, view=0, device=cpu)
    for place, row in enumerate(rows.tolist()):
        part = cache.data.parts[row >= N_TRAIN]
        own = torch.tensor([row - N_TRAIN if row >= N_TRAIN else row])
        assert torch.equal(shown[place], show(part, own, recipe, seed=7, view=0, device=cpu)[0])
