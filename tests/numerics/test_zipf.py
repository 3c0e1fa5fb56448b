"""Shares by rank: worked numbers of votes, ties, the label's place, and the votes themselves."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.numerics.reference import DIGITS, logits, signals_of
from trainables.config.objectives import ZipfConfig
from trainables.objectives import ZipfObjective
from trainables.objectives.zipf import votes, zipf_divergence_B, zipf_target
from trainables.signals import Losses

# B = samples in the batch, C = classes, H, W = height and width of the feature map
STUDENT = [[2.0, 1.0, 0.5, -0.5, 0.0]]
LABEL = torch.tensor([0])
CASES = [
    ([9, 4, 2, 0, 1], [0.389610, 0.259740, 0.155844, 0.194805], 0.020029),
    ([7, 4, 0, 0, 5], [0.25, 0.1875, 0.1875, 0.375], 0.195213),
    # Ranks 1, 2, 5, 4 of the others: their shares are 1, 1/2, 1/5 and 1/4 of 1.95.
    ([3, 8, 4, 0, 1], [1 / 1.95, 0.5 / 1.95, 0.2 / 1.95, 0.25 / 1.95], 0.009235),
]


def dense_of(counts: list[int]) -> Tensor:
    """1xCx1xW logits whose positions vote so often for each class."""
    classes = torch.tensor([c for c, count in enumerate(counts) for _ in range(count)])
    return F.one_hot(classes, len(counts)).double().T[None, :, None, :]


def zipf(counts: list[int], *, student: Tensor | None = None, label: int = 0, **fields: Any) -> Losses:
    student_BC = logits(STUDENT) if student is None else student
    signals = signals_of(student_BC, None, [label], dense={"weak": dense_of(counts)})
    return ZipfObjective(ZipfConfig(upsample=1, **fields))(signals)


@pytest.mark.parametrize(("counts", "target", "divergence"), CASES)
def test_shares_and_divergence_have_the_worked_values(
    counts: list[int], target: list[float], divergence: float
) -> None:
    found_BC = zipf_target(torch.tensor([counts]), LABEL, power=1.0)
    assert found_BC[0].tolist() == pytest.approx([0.0, *target], abs=DIGITS)
    assert zipf(counts).terms["zipf"].item() == pytest.approx(divergence, abs=DIGITS)


def test_the_gradient_has_the_worked_digits_and_agrees_with_finite_differences() -> None:
    student_BC, votes_BC = logits(STUDENT, grad=True), torch.tensor([CASES[0][0]])

    def divergence(rows_BC: Tensor) -> Tensor:
        return zipf_divergence_B(rows_BC, votes_BC, LABEL, power=1.0).mean()

    (found_BC,) = torch.autograd.grad(divergence(student_BC), student_BC)
    worked = [0.0, 0.065444, 0.016264, -0.054308, -0.027400]
    assert found_BC[0].tolist() == pytest.approx(worked, abs=DIGITS)
    assert found_BC[0, 0].item() == 0.0
    assert torch.autograd.gradcheck(divergence, student_BC, rtol=1e-6, atol=1e-9)


def test_the_objective_adds_a_tenth_to_the_labels() -> None:
    losses = zipf(CASES[0][0])
    assert losses.terms["ce"].item() == pytest.approx(0.592459, abs=DIGITS)
    assert losses.total.item() == pytest.approx(0.594462, abs=DIGITS)


def test_no_votes_at_all_give_equal_shares() -> None:
    assert zipf_target(torch.zeros(1, 5), LABEL, power=1.0)[0].tolist() == [0.0, 0.25, 0.25, 0.25, 0.25]


@pytest.mark.parametrize("power", [0.5, 2.0])
def test_a_power_bends_the_shares(power: float) -> None:
    found_BC = zipf_target(torch.tensor([CASES[0][0]]), LABEL, power=power)
    expected = [rank**-power for rank in (2, 3, 5, 4)]
    assert found_BC[0, 1:].tolist() == pytest.approx([e / sum(expected) for e in expected], rel=1e-12)


def test_ranks_agree_with_a_count_of_the_classes_above() -> None:
    draw = torch.Generator().manual_seed(0)
    votes_BC = torch.randint(0, 6, (16, 40), generator=draw)
    labels_B = torch.randint(0, 40, (16,), generator=draw)
    ranks_BC = 1 + (votes_BC[:, None, :] > votes_BC[:, :, None]).sum(dim=-1)
    shares_BC = (1 / ranks_BC.double()).scatter(1, labels_B[:, None], 0.0)
    expected_BC = shares_BC / shares_BC.sum(dim=-1, keepdim=True)
    torch.testing.assert_close(zipf_target(votes_BC, labels_B, power=1.0), expected_BC)


def test_every_position_of_the_enlarged_map_votes_once() -> None:
    dense_BCHW = torch.randn(3, 10, 4, 4, generator=torch.Generator().manual_seed(0))
    for factor in (1, 2, 3):
        assert votes(dense_BCHW, upsample=factor).sum(dim=-1).tolist() == [16 * factor**2] * 3
    plain_BC = votes(dense_BCHW, upsample=1)
    for row in range(3):
        assert (
            plain_BC[row].tolist() == dense_BCHW[row].argmax(dim=0).flatten().bincount(minlength=10).tolist()
        )


def test_only_the_samples_that_are_right_may_count() -> None:
    student_BC = logits([*STUDENT, [0.0, 3.0, 0.0, 0.0, 0.0]], grad=True)
    dense = dense_of(CASES[0][0]).expand(2, -1, -1, -1)
    objective = ZipfObjective(ZipfConfig(upsample=1, correct_only=True))
    for labels, kept in (([0, 0], 0.5), ([4, 4], 0.0)):
        losses = objective(signals_of(student_BC, None, labels, dense={"weak": dense}))
        assert losses.gauges["kept"].item() == kept
        assert losses.terms["zipf"].item() == pytest.approx(0.020029 if kept else 0.0, abs=DIGITS)
        (found_BC,) = torch.autograd.grad(losses.total, student_BC)
        assert torch.isfinite(found_BC).all()


def test_two_classes_leave_nothing_to_rank() -> None:
    losses = zipf([3, 4], student=logits([[1.0, -1.0]]))
    assert losses.terms["zipf"].item() == 0.0
    assert math.isfinite(losses.total.item())


def test_a_step_without_dense_logits_is_refused() -> None:
    with pytest.raises(ValueError, match="zipf needs the student's dense logits"):
        ZipfObjective(ZipfConfig())(signals_of(logits(STUDENT), None, [0]))
