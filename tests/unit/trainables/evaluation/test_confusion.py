"""Confusions and reliability of answers, against counts by hand."""

from __future__ import annotations

import pytest
import torch

from trainables.errors import DataError
from trainables.evaluation.confusion import answers_of, confusion_matrix, reliability_bins
from trainables.evaluation.metrics import figures_of

LOGITS = torch.tensor([[4.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 9.0]])
LABELS = torch.tensor([0, 0, 1, 2])


def test_figures_are_those_of_the_whole_split_however_it_is_cut_into_batches() -> None:
    whole = figures_of(LOGITS, LABELS)
    cut = answers_of([(LOGITS[:3], LABELS[:3]), (LOGITS[3:], LABELS[3:])])
    assert cut.figures() == pytest.approx(whole, abs=1e-6)


def test_rows_are_what_an_image_is_and_columns_what_it_is_taken_for() -> None:
    matrix = confusion_matrix(answers_of([(LOGITS, LABELS)]), 4)
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_bins_hold_each_answer_once_by_its_confidence() -> None:
    answers = answers_of([(LOGITS, LABELS)])
    bins = reliability_bins(answers)
    assert [each.samples for each in bins] == [0] * 6 + [1] + [0] * 6 + [1, 2]
    low = bins[6]
    assert low.lower <= float(answers.confidence_N[2]) < low.upper
    assert low.confidence == pytest.approx(float(answers.confidence_N[2]))
    assert [each.accuracy for each in bins[-2:]] == [0.0, 1.0]
    assert bins[0].accuracy is None


def test_without_an_image_there_is_nothing_to_tell() -> None:
    with pytest.raises(DataError, match="no image to evaluate on"):
        answers_of([])
