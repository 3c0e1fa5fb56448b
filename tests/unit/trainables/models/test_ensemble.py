"""The mean of several networks' answers, as logits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trainables.config import Combine
from trainables.models.foreign.ensemble import Ensemble


class Says(nn.Module):
    """The same logits about every image."""

    def __init__(self, *logits: float, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.logits = torch.tensor(logits, dtype=dtype)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), -1)


IMAGES = torch.zeros(3, 1, 2, 2)


def said(*members: nn.Module, shares: tuple[float, ...], combine: Combine = Combine.PROBABILITIES) -> Tensor:
    logits: Tensor = Ensemble(members, shares, combine)(IMAGES)
    assert logits.shape == (3, 2)
    return logits[0]


def test_probabilities_are_averaged_by_their_shares() -> None:
    one, two = Says(0.0, 0.0), Says(0.0, float(torch.tensor(3.0).log()))
    found = said(one, two, shares=(0.25, 0.75)).softmax(dim=0)
    torch.testing.assert_close(found, torch.tensor([0.25 * 0.5 + 0.75 * 0.25, 0.25 * 0.5 + 0.75 * 0.75]))


def test_logits_are_averaged_by_their_shares() -> None:
    found = said(Says(1.0, 2.0), Says(3.0, -2.0), shares=(0.25, 0.75), combine=Combine.LOGITS)
    torch.testing.assert_close(found, torch.tensor([2.5, -1.0]))


def test_the_scale_of_a_members_logits_does_not_outvote_the_others() -> None:
    shifted = said(Says(0.0, 1.0), Says(1000.0, 1002.0), shares=(0.5, 0.5))
    plain = said(Says(0.0, 1.0), Says(0.0, 2.0), shares=(0.5, 0.5))
    torch.testing.assert_close(shifted.softmax(dim=0), plain.softmax(dim=0))


def test_a_sure_member_leaves_finite_logits() -> None:
    found = said(Says(0.0, 2000.0), Says(0.0, 3000.0), shares=(0.5, 0.5))
    torch.testing.assert_close(found, torch.tensor([-2000.0 + torch.tensor(0.5).log(), 0.0]))


def test_a_member_in_half_precision_is_averaged_in_full() -> None:
    found = said(Says(0.0, 1.0, dtype=torch.float16), Says(0.0, 1.0), shares=(0.5, 0.5))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.softmax(dim=0), torch.tensor([0.0, 1.0]).softmax(dim=0))


@pytest.mark.parametrize("combine", list(Combine))
def test_one_that_says_the_same_twice_says_it(combine: Combine) -> None:
    found = said(Says(0.5, -1.0), Says(0.5, -1.0), shares=(0.4, 0.6), combine=combine)
    torch.testing.assert_close(found.softmax(dim=0), torch.tensor([0.5, -1.0]).softmax(dim=0))
