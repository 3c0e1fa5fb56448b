"""When a network's answers show nothing that chance would not give, and when too few show anything."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binom  # type: ignore[import-untyped]
from torch import Tensor

from trainables.evaluation.chance import LEVEL, WEAK, WRONGED, AgainstChance, against_chance


def labels(n: int = 1000, n_classes: int = 10) -> Tensor:
    return torch.arange(n) % n_classes


def test_chance_is_how_often_dealt_out_answers_would_be_right() -> None:
    found = against_chance(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 2]))
    assert (found.images, found.right) == (4, 2)
    assert found.by_chance == pytest.approx(3 / 4 * 2 / 4 + 1 / 4 * 1 / 4)


def test_classes_in_another_order_are_suspicious() -> None:
    assert against_chance((labels() + 1) % 10, labels()).is_suspicious


def test_two_classes_that_are_swapped_are_suspicious_already_on_twenty_images() -> None:
    assert against_chance(1 - labels(20, 2), labels(20, 2)).is_suspicious


def test_one_answer_for_all_is_suspicious_however_frequent_the_class_is() -> None:
    uneven = torch.tensor([0] * 600 + [1] * 400)
    assert against_chance(torch.zeros(1000, dtype=torch.long), uneven).is_suspicious


def test_a_balanced_teacher_on_uneven_classes_is_not_suspicious_below_the_most_frequent_class() -> None:
    uneven = torch.tensor([0] * 900 + [1] * 100)
    answers = torch.cat([torch.tensor([0, 0, 0, 1, 1] * 180), torch.ones(100, dtype=torch.long)])
    found = against_chance(answers, uneven)
    assert found.right / found.images < 0.9
    assert not found.is_suspicious


def test_a_weak_but_honest_teacher_is_not_suspicious() -> None:
    answers = torch.where(torch.arange(1000) % 100 < 30, labels(), (labels() + 3) % 10)
    assert not against_chance(answers, labels()).is_suspicious


def test_few_images_condemn_nobody() -> None:
    assert not AgainstChance(images=12, right=1, by_chance=0.1).is_suspicious


def test_a_teacher_of_many_classes_that_is_seldom_right_is_better_than_chance() -> None:
    found = AgainstChance(images=1000, right=20, by_chance=0.001)
    assert found.is_better
    assert not found.is_suspicious


@pytest.mark.parametrize(("images", "chance"), [(50, 0.5), (240, 0.25), (287, 0.1), (10_000, 0.01)])
def test_both_tests_are_the_exact_binomial_ones(images: int, chance: float) -> None:
    weak = chance + WEAK * (1 - chance)
    for right in range(0, images + 1, max(1, images // 40)):
        found = AgainstChance(images=images, right=right, by_chance=chance)
        better = binom.sf(right - 1, images, chance) <= LEVEL
        assert found.is_better == better
        assert found.is_suspicious == (not better and binom.cdf(right, images, weak) <= WRONGED)
