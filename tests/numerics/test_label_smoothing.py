"""The recipe's label smoothing in every objective: part of each label is spread evenly over all classes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.numerics import random_signals
from tests.numerics.reference import (
    DIGITS,
    THREE_STUDENT,
    WEAK_STUDENT,
    all_views,
    logits,
    one_view,
)
from trainables.config import OBJECTIVE_CONFIGS
from trainables.objectives.terms.divergences import label_loss
from trainables.signals import Losses, Mixing, Signals

SMOOTHING = 0.1


def losses_of(name: str, smoothing: float) -> Losses:
    dense = {"weak": logits(THREE_STUDENT)[:, :, None, None]}
    config = OBJECTIVE_CONFIGS[name]()
    if getattr(config, "ce_weight", 1.0) == 0:  # the total is to hear of the labels
        config = config.with_overrides(ce_weight=1.0)
    return random_signals.losses_of(config, all_views(dense=dense, label_smoothing=smoothing))


def smoothed(signals: Signals, bank: str) -> Tensor:
    """By the definition (Szegedy et al., CVPR 2016, section 7): the label keeps 1 - s + s / C."""
    log_BC = signals.student[bank].log_softmax(dim=-1)
    target_BC = (1 - SMOOTHING) * F.one_hot(signals.labels_B, 4) + SMOOTHING / 4
    return -(target_BC * log_BC).sum(dim=-1).mean()


@pytest.mark.parametrize("name", OBJECTIVE_CONFIGS)
def test_the_labels_of_every_objective_are_smoothed_and_nothing_else_is(name: str) -> None:
    plain, found = losses_of(name, 0.0), losses_of(name, SMOOTHING)
    assert found.terms.keys() == plain.terms.keys()
    changed = {term for term in found.terms if not torch.equal(found.terms[term], plain.terms[term])}
    assert changed == {term for term in found.terms if term.startswith("ce")}
    for term in changed - {"ce_head"}:  # which is of other logits: those of the teacher's classifier
        bank = "strong" if term == "ce_strong" else "weak"
        torch.testing.assert_close(found.terms[term], smoothed(all_views(), bank), rtol=0, atol=1e-6)
    assert bool(found.total != plain.total) is bool(changed)


def test_a_smoothed_label_by_hand() -> None:
    """F1: its cross-entropy is 0.826856, the mean of -log p over all entries 1.501856."""
    found = float(label_loss(one_view(label_smoothing=SMOOTHING), "weak"))
    assert found == pytest.approx(0.9 * 0.826856 + 0.1 * 1.501856, abs=DIGITS)


def test_labels_of_mixed_images_are_smoothed_too() -> None:
    mixing = Mixing(torch.tensor([[0, 2], [2, 1]]), torch.tensor([[0.75, 0.25], [0.5, 0.5]]).double())
    signals = replace(one_view(label_smoothing=SMOOTHING), mixed={"weak": mixing})
    target_BC = torch.tensor([[0.75, 0.0, 0.25, 0.0], [0.0, 0.5, 0.5, 0.0]]).double()
    target_BC = (1 - SMOOTHING) * target_BC + SMOOTHING / 4
    expected = -(target_BC * logits(WEAK_STUDENT).log_softmax(dim=-1)).sum(dim=-1).mean()
    torch.testing.assert_close(label_loss(signals, "weak"), expected)
