"""The recipe's label smoothing in every objective: part of each label is spread evenly over all classes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.numerics import random_signals
from tests.numerics.feature_stand_ins import features_of, peers_of
from tests.numerics.reference import (
    DIGITS,
    THREE_STUDENT,
    WEAK_STUDENT,
    all_views,
    logits,
    one_view,
)
from trainables.config import OBJECTIVE_CONFIGS
from trainables.config.objective_base import MIXED
from trainables.objectives.terms.divergences import label_loss
from trainables.signals import Losses, Mixing, Pairs, Signals

SMOOTHING = 0.1
OF_OTHER_LOGITS = {"thkd": {"ce_head"}, "mfef": {"fusion_ce"}, "mixskd": {"ce", "ce_mixed"}}
"""Terms by objective that are, in part or whole, of what a module beside the student says."""


def losses_of(name: str, smoothing: float) -> Losses:
    dense = {"weak": logits(THREE_STUDENT)[:, :, None, None]}
    config = OBJECTIVE_CONFIGS[name]()
    if getattr(config, "ce_weight", 1.0) == 0:  # the total is to hear of the labels
        config = config.with_overrides(ce_weight=1.0)
    signals = all_views(dense=dense, label_smoothing=smoothing)
    if config.pair_mixing is not None:
        signals = mixed_in_pairs(signals)
    return random_signals.losses_of(config, signals)


def mixed_in_pairs(signals: Signals) -> Signals:
    """With answers to images that are mixed, each with the one of the opposite place."""
    pairs = Pairs(torch.arange(len(signals.labels_B)).flip(0), torch.tensor(0.3))
    student = {**signals.student, MIXED: pairs.mixed(signals.student["weak"])}
    features = {bank: features_of(value_BC) for bank, value_BC in student.items()}
    return replace(signals, pairs=pairs, student=student, features=features)


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
    assert changed == {term for term in found.terms if "ce" in term.split("_")}
    for term in changed - OF_OTHER_LOGITS.get(name, set()):
        signals, bank = all_views(), "strong" if term == "ce_strong" else "weak"
        if term == "peer1_ce":
            signals = replace(signals, student=peers_of(signals.student)[0].logits)
        torch.testing.assert_close(found.terms[term], smoothed(signals, bank), rtol=0, atol=1e-6)
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
