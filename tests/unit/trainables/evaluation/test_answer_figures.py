"""What accuracy does not show: uneven classes, and students that give one answer."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from trainables.evaluation.metrics import answer_figures


def test_balanced_accuracy_is_scikit_learns_where_classes_are_uneven() -> None:
    generator = torch.Generator().manual_seed(0)
    labels_N = torch.cat([torch.zeros(70), torch.full((20,), 1), torch.full((5,), 4)]).long()
    answers_N = torch.where(torch.rand(95, generator=generator) < 0.6, labels_N, torch.tensor(0))
    found = answer_figures(answers_N, labels_N)
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels_N, answers_N))


def test_even_classes_have_no_balanced_accuracy() -> None:
    labels_N = torch.tensor([0, 0, 1, 1, 1, 1])
    assert answer_figures(labels_N, labels_N) == {"answered_classes": 2}
    more_N = torch.tensor([0, 0, 1, 1, 1, 1, 1])
    assert answer_figures(more_N, more_N) == {"answered_classes": 2, "balanced_accuracy": 1}


def test_a_network_that_gives_every_image_one_class_is_known_by_it() -> None:
    labels_N = torch.tensor([0, 1, 2, 2, 2, 2, 2])
    found = answer_figures(torch.full((7,), 2), labels_N)
    assert found == {"answered_classes": 1, "balanced_accuracy": pytest.approx(1 / 3)}
