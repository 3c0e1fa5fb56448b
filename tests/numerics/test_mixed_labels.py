"""The cross-entropy of images that are made of several samples."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.numerics import random_signals
from tests.numerics.random_signals import BANKS
from trainables.config import OBJECTIVE_CONFIGS
from trainables.objectives.terms.divergences import cross_entropy
from trainables.signals import Mixing

# B = samples in the batch, C = classes, K = images that are mixed into one


def random_logits(seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(scale=2.0, size=(6, 5)).astype(np.float32))


def random_mixing(seed: int, k: int) -> Mixing:
    draw = np.random.default_rng(seed)
    shares_BK = torch.from_numpy(draw.dirichlet([1.0] * k, size=6).astype(np.float32))
    return Mixing(torch.from_numpy(draw.integers(5, size=(6, k))), shares_BK)


def soft_labels(mixing: Mixing) -> Tensor:
    one_hot_BKC = F.one_hot(mixing.labels_BK, 5).float()
    return (mixing.shares_BK[:, :, None] * one_hot_BKC).sum(dim=1)


def test_a_mixed_image_counts_each_label_by_its_share() -> None:
    # Probabilities 1/4 and 3/4; a quarter of the image is of class 0: -(1/4 ln 1/4 + 3/4 ln 3/4).
    student = torch.tensor([[0.0, math.log(3.0)]])
    mixing = Mixing(torch.tensor([[0, 1]]), torch.tensor([[0.25, 0.75]]))
    assert cross_entropy(student, torch.tensor([0]), mixing).item() == pytest.approx(0.5623351446, rel=1e-6)


@pytest.mark.parametrize("k", [2, 4])
def test_the_mixed_loss_and_its_gradient_are_those_of_soft_labels(k: int) -> None:
    mixing, results = random_mixing(1, k), []
    for mixed in (True, False):
        student = random_logits(2).requires_grad_()
        labels = mixing.labels_BK[:, 0]
        loss = (
            cross_entropy(student, labels, mixing) if mixed else F.cross_entropy(student, soft_labels(mixing))
        )
        (gradient,) = torch.autograd.grad(loss, student)
        results.append((loss.detach(), gradient))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-7)


def test_an_image_that_is_wholly_its_own_has_its_own_label() -> None:
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    shares = torch.tensor([[1.0, 0.0]]).expand(6, 2)
    mixing = Mixing(torch.stack([labels, labels.flip(0)], dim=1), shares)
    torch.testing.assert_close(
        cross_entropy(random_logits(3), labels, mixing), cross_entropy(random_logits(3), labels)
    )


@pytest.mark.parametrize("name", [n for n, c in OBJECTIVE_CONFIGS.items() if not c.unmixed_banks])
def test_an_objective_that_takes_mixed_banks_hears_of_their_labels(name: str) -> None:
    config = OBJECTIVE_CONFIGS[name]()
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    mixed = {bank: random_mixing(4 + place, 2) for place, bank in enumerate(BANKS)}
    students, teachers = random_signals.random_logits(6, 6, 5), random_signals.random_logits(8, 6, 5)
    signals = random_signals.signals_of(students, teachers, labels)
    losses = random_signals.losses_of(config, replace(signals, mixed=mixed))
    terms = {term: value for term, value in losses.terms.items() if term.startswith("ce")}
    terms.pop("ce_head", None)  # of other logits: those of the teacher's classifier
    for term, value in terms.items():
        bank = term.removeprefix("ce_") if term != "ce" else "weak"
        torch.testing.assert_close(value, F.cross_entropy(students[bank], soft_labels(mixed[bank])))
