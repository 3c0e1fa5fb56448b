"""Epochs of pairs of a class: what a batch, a worker and a course have of them, and what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from tests.unit.trainables.training.small_courses import (
    SHORT,
    Rank,
    same_weights,
    separable_data,
    small_course,
    small_workbench,
    weights_of,
)
from tests.unit.trainables.unlabelled_splits import noise, with_unlabelled
from trainables.config import TrainingConfig
from trainables.config.data import UnlabelledConfig
from trainables.config.training import Sampling
from trainables.data import TrainingData
from trainables.training.batches import Batch, epoch_batches, shared
from trainables.training.epoch_order import epoch_rows
from trainables.training.loop import train
from trainables.training.progress.checkpoints import CheckpointFolder
from trainables.training.ranks import SOLO, Share

PAIRS = SHORT.with_overrides(sampling="pairs")
N_OWN = 30
LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=60)


def rows_of(labels: list[int], seed: int = 0) -> Tensor:
    return epoch_rows(torch.tensor(labels), Sampling.PAIRS, torch.Generator().manual_seed(seed))


@given(labels=LABELS, seed=st.integers(0, 2**32))
@settings(deadline=None)
def test_every_row_comes_once_and_the_odd_one_of_a_class_with_another(labels: list[int], seed: int) -> None:
    rows = rows_of(labels, seed)
    pairs = rows.view(-1, 2).tolist()
    assert all(labels[one] == labels[other] for one, other in pairs)
    times, sizes = Counter(rows.tolist()), Counter(labels)
    assert set(times) == set(range(len(labels)))
    for label, size in sizes.items():
        more = [row for row, count in times.items() if labels[row] == label and count > 1]
        assert len(more) == size % 2
        assert all(times[row] == 2 for row in more)
    alone = [one for one, other in pairs if one == other]
    assert sorted(alone) == [row for row, label in enumerate(labels) if sizes[label] == 1]


@given(labels=LABELS, half=st.integers(1, 20), epoch=st.integers(1, 50))
@settings(deadline=None)
def test_every_row_of_a_batch_has_another_of_its_class_in_it(
    labels: list[int], half: int, epoch: int
) -> None:
    data = separable_data(len(labels))
    data.train.labels[:] = torch.tensor(labels)
    some = epoch_batches(
        data, PAIRS.with_overrides(batch_size=2 * half), seed=1, epoch=epoch, unlabelled=False
    )
    expected = sum(size + size % 2 for size in Counter(labels).values())
    assert len(some) == max(expected // (2 * half), 1)
    for batch in some:
        assert len(batch.rows_B) == min(2 * half, expected)
        assert min(Counter(labels[row] for row in batch.rows_B.tolist()).values()) >= 2


def test_partners_change_from_epoch_to_epoch_and_follow_from_the_seed() -> None:
    labels = [0] * 7 + [1] * 8 + [2]
    assert torch.equal(rows_of(labels, 4), rows_of(labels, 4))
    seen = [rows_of(labels, seed) for seed in range(60)]
    joined = {frozenset(pair) for rows in seen for pair in rows.view(-1, 2).tolist()}
    assert len(joined) == 7 * 6 // 2 + 8 * 7 // 2 + 1
    twice = {row for rows in seen for row, count in Counter(rows.tolist()).items() if count == 2}
    assert twice == {*range(7), 15}


def test_trials_of_other_samplings_keep_their_ids() -> None:
    assert "sampling" not in TrainingConfig().plain()
    assert TrainingConfig(sampling=Sampling.PAIRS).plain()["sampling"] == "pairs"


@pytest.mark.parametrize("size", [1, 7, 33])
def test_a_batch_of_an_odd_number_is_refused(size: int) -> None:
    told = rf"sampling pairs needs an even `batch_size`, and {size} samples are not whole pairs"
    with pytest.raises(ValidationError, match=told):
        TrainingConfig(sampling=Sampling.PAIRS, batch_size=size)
    with pytest.raises(ValidationError, match=told):
        PAIRS.with_overrides(batch_size=size)
    assert TrainingConfig(batch_size=size).batch_size == size


def shares(batch: Batch, size: int, n_train: int) -> list[Share]:
    return [shared(Rank(rank, size), batch, n_train=n_train) for rank in range(size)]  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [2, 3, 4, 7])
def test_workers_share_whole_pairs(size: int) -> None:
    data = separable_data(44)
    batch = epoch_batches(data, PAIRS.with_overrides(batch_size=10), seed=1, epoch=1, unlabelled=False)[0]
    own = shares(batch, size, 44)
    assert sum(share.part for share in own) == pytest.approx(1)
    rows = torch.cat([share.rows_B for share in own if share.part])
    assert rows.tolist() == batch.rows_B.tolist()
    for share in own:
        labels_P2 = data.train.labels[share.rows_B].view(-1, 2)
        assert torch.equal(labels_P2[:, 0], labels_P2[:, 1])
        assert share.part in (0, len(share.rows_B) / 10)
    assert shared(SOLO, batch, n_train=44).rows_B.tolist() == batch.rows_B.tolist()


def beside(**config: Any) -> TrainingData:
    return with_unlabelled(separable_data(43), noise(N_OWN), **config)


@pytest.mark.parametrize(("share", "labelled"), [(0.5, 4), (0.25, 6), (0.4, 4), (0.01, 6), (0.99, 2)])
def test_beside_unlabelled_images_a_batch_holds_whole_pairs(share: float, labelled: int) -> None:
    data = beside(share=share)
    some = epoch_batches(data, PAIRS, seed=3, epoch=2, unlabelled=True)
    for batch in some:
        assert len(batch.rows_B) == 8
        assert batch.n_labelled == labelled
        own = batch.rows_B[batch.rows_B < 43]
        labels_P2 = data.train.labels[own].view(-1, 2)
        assert torch.equal(labels_P2[:, 0], labels_P2[:, 1])
    unlabelled = torch.cat([batch.rows_B for batch in some])
    unlabelled = unlabelled[unlabelled >= 43]
    times = Counter(unlabelled.tolist()).values()
    assert max(times) - min(times) <= 2  # the epoch begins and ends in the middle of an order


@pytest.mark.parametrize("size", [2, 3, 4])
def test_workers_share_whole_pairs_beside_unlabelled_images(size: int) -> None:
    data = beside()
    batch = epoch_batches(data, PAIRS.with_overrides(batch_size=16), seed=3, epoch=2, unlabelled=True)[0]
    n_labelled = 0
    for share in shares(batch, size, 43):
        assert share.labelling is not None
        own = share.rows_B[: share.labelling.count]
        n_labelled += len(own)
        assert bool((own < 43).all())
        labels_P2 = data.train.labels[own].view(-1, 2)
        assert torch.equal(labels_P2[:, 0], labels_P2[:, 1])
    assert n_labelled == batch.n_labelled == 8


def test_a_single_short_batch_holds_an_even_number_of_both() -> None:
    (batch,) = epoch_batches(
        beside(share=0.25), PAIRS.with_overrides(batch_size=200), seed=3, epoch=1, unlabelled=True
    )
    assert batch.n_labelled is not None
    assert batch.n_labelled % 2 == 0
    assert (len(batch.rows_B) - batch.n_labelled) % 2 == 0
    assert len(batch.rows_B) - batch.n_labelled == pytest.approx(batch.n_labelled / 3, abs=1)


@pytest.mark.parametrize(
    ("share", "batch_size", "rows"), [(0.5, 64, 32), (0.5, 6, 4), (0.01, 8, 2), (0.99, 8, 6), (1.0, 8, 8)]
)
def test_the_share_of_a_batch_is_counted_in_pairs(share: float, batch_size: int, rows: int) -> None:
    assert UnlabelledConfig(root="a", share=share).rows_of(batch_size, together=2) == rows


def test_a_course_of_pairs_that_goes_on_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = small_course(PAIRS)
    train(whole, small_workbench(), on_epoch=lambda *_: None)
    parted, ended = small_course(PAIRS), []
    files = CheckpointFolder(tmp_path / "trial", spec_digest="a" * 64)
    train(
        parted,
        small_workbench(),
        on_epoch=lambda epoch, _: ended.append(epoch),
        should_stop=lambda: len(ended) >= 3,
        files=files,
    )
    assert ended == [1, 2, 3]
    again = small_course(PAIRS)
    train(again, small_workbench(), on_epoch=lambda *_: None, files=files)
    assert same_weights(weights_of(again.model), weights_of(whole.model))
    natural = small_course(SHORT)
    train(natural, small_workbench(), on_epoch=lambda *_: None)
    assert not same_weights(weights_of(natural.model), weights_of(whole.model))
