"""Which unlabelled images a batch holds: their share, all equally often, from seed and epoch alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from tests.unit.trainables.training.small_courses import SHORT, Rank, separable_data
from tests.unit.trainables.unlabelled_splits import noise, with_unlabelled
from trainables.config import CeConfig, KdConfig
from trainables.data import TrainingData
from trainables.training.batches import Batch, epoch_batches, hears_unlabelled, shared
from trainables.training.ranks import SOLO

N_TRAIN, N_OWN = 44, 30


def data(**config: Any) -> TrainingData:
    return with_unlabelled(separable_data(N_TRAIN), noise(N_OWN), **config)


def batches(epoch: int, *, size: int = 8, seed: int = 3, **config: Any) -> list[Batch]:
    training = SHORT.with_overrides(batch_size=size)
    return epoch_batches(data(**config), training, seed=seed, epoch=epoch, unlabelled=True)


def unlabelled_of(some: list[Batch]) -> list[int]:
    rows = torch.cat([batch.rows_B for batch in some])
    return rows[rows >= N_TRAIN].tolist()


@pytest.mark.parametrize(("share", "labelled"), [(0.5, 4), (0.25, 6), (0.75, 2), (0.01, 7), (0.99, 1)])
def test_a_batch_holds_both_kinds_in_their_share(share: float, labelled: int) -> None:
    some = batches(1, share=share)
    assert len(some) == N_TRAIN // labelled
    for batch in some:
        assert len(batch.rows_B) == 8
        assert batch.n_labelled == int((batch.rows_B < N_TRAIN).sum()) == labelled


def test_an_epoch_is_one_pass_over_the_training_split() -> None:
    rows = torch.cat([batch.rows_B for batch in batches(1)])
    assert rows[rows < N_TRAIN].sort().values.tolist() == list(range(N_TRAIN))


def test_unlabelled_images_come_equally_often_over_the_epochs() -> None:
    seen = [row for epoch in range(1, 16) for row in unlabelled_of(batches(epoch))]
    assert len(seen) == 15 * N_TRAIN == 22 * N_OWN
    assert set(Counter(seen).values()) == {22}
    first, second = seen[:N_OWN], seen[N_OWN : 2 * N_OWN]
    assert sorted(first) == sorted(second) == list(range(N_TRAIN, N_TRAIN + N_OWN))
    assert first != second


def test_in_the_place_of_labelled_images_an_epoch_is_one_pass_over_the_unlabelled_ones() -> None:
    some = batches(2, size=10, share=1.0)
    assert [batch.n_labelled for batch in some] == [0, 0, 0]
    assert sorted(unlabelled_of(some)) == list(range(N_TRAIN, N_TRAIN + N_OWN))
    assert unlabelled_of(some) != unlabelled_of(batches(3, size=10, share=1.0))


def test_seed_and_epoch_alone_decide() -> None:
    def rows(**changes: int) -> list[list[int]]:
        settings = {"epoch": 4, "seed": 3} | changes
        return [batch.rows_B.tolist() for batch in batches(settings["epoch"], seed=settings["seed"])]

    assert rows() == rows()
    assert rows() != rows(seed=4)
    assert rows() != rows(epoch=5)


def test_labelled_samples_come_in_the_order_that_they_have_alone() -> None:
    alone = epoch_batches(separable_data(N_TRAIN), SHORT, seed=3, epoch=2, unlabelled=False)
    beside = torch.cat([batch.rows_B for batch in batches(2)])
    order = torch.cat([batch.rows_B for batch in alone])
    assert [batch.n_labelled for batch in alone] == [None] * 5
    assert beside[beside < N_TRAIN][: len(order)].tolist() == order.tolist()


def test_a_single_short_batch_has_its_share_too() -> None:
    (batch,) = batches(1, size=200)
    assert (len(batch.rows_B), batch.n_labelled) == (88, 44)


def test_without_a_teacher_only_labelled_samples_are_seen() -> None:
    assert hears_unlabelled(KdConfig(), data())
    assert not hears_unlabelled(CeConfig(), data())
    assert not hears_unlabelled(KdConfig(), separable_data())


def test_one_worker_has_the_labelled_rows_first_and_all_of_them() -> None:
    batch = batches(1)[0]
    share = shared(SOLO, batch, n_train=N_TRAIN)
    assert share.labelling is not None
    assert (share.part, share.labelling.count, share.labelling.scale) == (1.0, 4, 1.0)
    assert (share.rows_B[:4] < N_TRAIN).all()
    assert (share.rows_B[4:] >= N_TRAIN).all()
    assert sorted(share.rows_B.tolist()) == sorted(batch.rows_B.tolist())


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("share", [0.5, 0.3, 0.9])
def test_ranks_losses_together_are_those_of_the_batch(size: int, share: float) -> None:
    batch = batches(1, size=11, share=share)[0]
    value_R = torch.rand(N_TRAIN + N_OWN, generator=torch.Generator().manual_seed(0))
    labels, everything = 0.0, 0.0
    for rank in range(size):
        own = shared(Rank(rank, size), batch, n_train=N_TRAIN)  # type: ignore[arg-type]
        assert own.labelling is not None
        own_labelled = own.rows_B[: own.labelling.count]
        if len(own_labelled):
            labels += own.part * own.labelling.scale * float(value_R[own_labelled].mean())
        everything += own.part * float(value_R[own.rows_B].mean())
    labelled = batch.rows_B[batch.rows_B < N_TRAIN]
    assert labels == pytest.approx(float(value_R[labelled].mean()))
    assert everything == pytest.approx(float(value_R[batch.rows_B].mean()))


def test_ranks_have_both_kinds_in_nearly_the_same_share() -> None:
    batch = batches(1, size=16)[0]
    counts = [shared(Rank(r, 4), batch, n_train=N_TRAIN).labelling for r in range(4)]  # type: ignore[arg-type]
    assert [labelling.count for labelling in counts if labelling] == [2, 2, 2, 2]
