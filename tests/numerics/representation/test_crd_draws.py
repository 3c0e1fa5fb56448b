"""Which training samples a sample is told from: other classes, without replacement, each as likely."""

from __future__ import annotations

import math
from typing import Final

import pytest
import torch
from torch import Tensor

from trainables.config.representation.contrast import NegativeDraw, Shortage
from trainables.objectives.representation.terms.negatives import ClassPools

# B = samples in the batch, N = training samples

LABELS: Final = torch.tensor([0, 1, 2, 2, 1, 0, 0, 2, 0, 1, 0, 2])
PARTLY: Final = torch.tensor([0, 1, -1, 2, 1, -1, 0, 2, 0, -1, 0, 2])
BATCH, SAMPLE = NegativeDraw.BATCH, NegativeDraw.SAMPLE
CAP, REPEAT = Shortage.CAP, Shortage.REPEAT


def pools(
    negatives: int, labels_N: Tensor = LABELS, draw: NegativeDraw = BATCH, short: Shortage = CAP
) -> ClassPools:
    return ClassPools(labels_N, 3, negatives=negatives, draw=draw, when_short=short)


def times(one: ClassPools, rows_B: Tensor, labels_B: Tensor | None = None) -> Tensor:
    """BxN: how often each training sample was drawn."""
    labels_B = one.labels_N[rows_B] if labels_B is None else labels_B
    drawn = one.negatives(rows_B, labels_B)
    found_BN = torch.zeros(len(rows_B), one.n_samples, dtype=torch.int64)
    found_BN[:, drawn.rows_L] = drawn.times_BL.long()
    return found_BN


def of_other_classes(rows_B: Tensor) -> Tensor:
    return LABELS[rows_B][:, None] != LABELS


@pytest.mark.parametrize("draw", [BATCH, SAMPLE])
@pytest.mark.parametrize("negatives", [1, 3, 7])
def test_negatives_are_so_many_different_samples_of_other_classes(negatives: int, draw: NegativeDraw) -> None:
    torch.manual_seed(0)
    rows_B, one = torch.tensor([0, 1, 2, 2, 11]), pools(negatives, draw=draw)
    for _ in range(50):
        times_BN = times(one, rows_B)
        assert times_BN.sum(dim=-1).tolist() == [negatives] * 5
        assert times_BN.max() == 1
        assert not times_BN[~of_other_classes(rows_B)].any()


@pytest.mark.parametrize("draw", [BATCH, SAMPLE])
def test_each_sample_of_other_classes_is_as_likely_as_another(draw: NegativeDraw) -> None:
    torch.manual_seed(0)
    rows_B, one, rounds = torch.tensor([0, 1]), pools(3, draw=draw), 3000
    share_BN = torch.stack([times(one, rows_B) for _ in range(rounds)]).double().mean(dim=0)
    for row, pool in ((0, 7), (1, 9)):  # samples of other classes
        expected = 3 / pool
        deviation = math.sqrt(expected * (1 - expected) / rounds)
        others_BN = share_BN[row][of_other_classes(rows_B)[row]]
        assert (others_BN - expected).abs().max() < 4.5 * deviation


def test_each_sample_draws_its_own_or_all_share_an_order() -> None:
    torch.manual_seed(0)
    rows_B = torch.tensor([0, 5, 6])  # of one class
    shared = [times(pools(3), rows_B) for _ in range(20)]
    own = [times(pools(3, draw=SAMPLE), rows_B) for _ in range(20)]
    assert all((times_BN == times_BN[0]).all() for times_BN in shared)
    assert any((times_BN != times_BN[0]).any() for times_BN in own)


def test_a_draw_follows_the_global_generator() -> None:
    rows_B = torch.tensor([0, 1])
    for draw in (BATCH, SAMPLE):
        torch.manual_seed(7)
        first, second = times(pools(3, draw=draw), rows_B), times(pools(3, draw=draw), rows_B)
        torch.manual_seed(7)
        assert torch.equal(times(pools(3, draw=draw), rows_B), first)
        assert not torch.equal(second, first)


@pytest.mark.parametrize("draw", [BATCH, SAMPLE])
def test_more_than_the_smallest_pool_is_capped_for_all(draw: NegativeDraw) -> None:
    one = pools(16384, draw=draw)
    assert one.count == 7  # of class 0, five of twelve
    times_BN = times(one, torch.arange(12))
    assert times_BN.sum(dim=-1).tolist() == [7] * 12
    assert torch.equal(times_BN[0].bool(), LABELS != 0)


def test_or_a_pool_that_is_too_small_is_drawn_from_again() -> None:
    torch.manual_seed(0)
    rows_B, one, rounds = torch.tensor([0, 1]), pools(8, short=REPEAT), 2000
    assert one.count == 8
    share_BN = torch.zeros(2, 12)
    for _ in range(rounds):
        times_BN = times(one, rows_B)
        assert times_BN.sum(dim=-1).tolist() == [8, 8]
        assert times_BN[1].max() == 1  # class 1 has nine others
        assert not times_BN[~of_other_classes(rows_B)].any()
        share_BN += times_BN / rounds
    deviation = math.sqrt(8 * (1 / 7) * (6 / 7) / rounds)
    assert (share_BN[0][LABELS != 0] - 8 / 7).abs().max() < 4.5 * deviation
    assert (share_BN[1][LABELS != 1] - 8 / 9).abs().max() < 0.05


@pytest.mark.parametrize("draw", [BATCH, SAMPLE])
@pytest.mark.parametrize("short", [CAP, REPEAT])
def test_unlabelled_samples_are_negatives_of_each_other_alone(draw: NegativeDraw, short: Shortage) -> None:
    torch.manual_seed(0)
    rows_B = torch.arange(12)
    one = pools(16384 if short is CAP else 20, PARTLY, draw, short)
    assert one.count == (5 if short is CAP else 20)  # nine labelled samples, four of class 0
    drawn_BN = torch.stack([times(one, rows_B) for _ in range(60)]).sum(dim=0)
    for row, label in enumerate(PARTLY.tolist()):
        others_N = (PARTLY >= 0) & (label != PARTLY) if label >= 0 else torch.arange(12) != row
        assert torch.equal(drawn_BN[row] > 0, others_N)


def test_without_any_label_all_others_are_negatives() -> None:
    one = pools(16384, torch.full((5,), -1))
    assert one.count == 4
    assert torch.equal(times(one, torch.arange(5)), 1 - torch.eye(5, dtype=torch.int64))


def test_a_class_given_to_an_unlabelled_sample_leaves_its_labelled_samples_out() -> None:
    """As `top_class_as_target` does."""
    times_BN = times(pools(3, PARTLY), torch.tensor([2, 5]), torch.tensor([0, 2]))
    assert not times_BN[0][(PARTLY == 0) | (PARTLY < 0)].any()
    assert not times_BN[1][(PARTLY == 2) | (PARTLY < 0)].any()
    assert times_BN.sum(dim=-1).tolist() == [3, 3]


def test_a_relaxed_positive_is_any_sample_of_the_class() -> None:
    torch.manual_seed(0)
    rows_B = torch.tensor([1, 2, 0])
    labels_B, one = PARTLY[rows_B], pools(3, PARTLY)
    drawn = torch.stack([one.of_the_same_class(rows_B, labels_B) for _ in range(200)])
    assert set(drawn[:, 0].tolist()) == {1, 4}
    assert set(drawn[:, 1].tolist()) == {2}  # unlabelled: itself
    assert set(drawn[:, 2].tolist()) == {0, 6, 8, 10}


def test_a_class_without_training_samples_has_the_sample_itself_for_a_positive() -> None:
    one = ClassPools(torch.tensor([0, 1, -1]), 4, negatives=1, draw=BATCH, when_short=CAP)
    rows_B, labels_B = torch.tensor([2]), torch.tensor([3])
    assert one.of_the_same_class(rows_B, labels_B).tolist() == [2]


def test_nothing_of_the_pools_is_in_a_state() -> None:
    assert not pools(3).state_dict()
