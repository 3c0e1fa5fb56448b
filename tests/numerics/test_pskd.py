"""The student's own answers as labels: worked numbers, the schedule, and the table from epoch to epoch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.numerics.reference import (
    DIGITS,
    LABELS,
    WEAK_STUDENT,
    gradient,
    logits,
    one_view,
    signals_of,
)
from trainables.config.objectives import PskdConfig
from trainables.objectives import PskdObjective
from trainables.objectives.pskd import trust_of
from trainables.signals import Losses, Setting, Signals

# B = samples in the batch, C = classes
ROWS = torch.tensor([5, 2])
ANSWERS = [[0.6, 0.2, 0.1, 0.1], [0.3, 0.3, 0.3, 0.1]]


def pskd(*, trust: float, answers: list[list[float]] | None = None, **fields: Any) -> PskdObjective:
    """In the last of ten epochs, so that the trust is the largest."""
    objective = PskdObjective(PskdConfig(max_trust=trust, **fields), Setting(8, 4, epochs=10)).double()
    if answers is not None:
        objective.answers_NC[ROWS] = torch.tensor(answers, dtype=objective.answers_NC.dtype)
        objective.answered_N[ROWS] = True
    return objective


def last_epoch(*, grad: bool = False) -> Signals:
    return one_view(grad=grad, epoch=10, rows_B=ROWS)


def test_the_loss_and_its_gradient_have_the_worked_values() -> None:
    signals = last_epoch(grad=True)
    total = pskd(trust=0.4, answers=ANSWERS)(signals).total
    assert total.item() == pytest.approx(1.012856, abs=DIGITS)
    found_BC = gradient(total, signals)
    assert found_BC[0].tolist() == pytest.approx([-0.192473, 0.098002, 0.030768, 0.063703], abs=DIGITS)
    target_BC = 0.6 * F.one_hot(torch.tensor(LABELS), 4) + 0.4 * torch.tensor(ANSWERS).double()
    closed_BC = (logits(WEAK_STUDENT).softmax(dim=-1) - target_BC) / 2
    torch.testing.assert_close(found_BC, closed_BC, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("epoch", "trust"), [(1, 0.002667), (150, 0.4), (300, 0.8)])
def test_the_trust_grows_to_its_end(epoch: int, trust: float) -> None:
    assert trust_of(PskdConfig(), epoch, 300) == pytest.approx(trust, abs=DIGITS)


def test_a_cosine_grows_to_the_same_end_with_the_same_middle() -> None:
    values = [trust_of(PskdConfig(growth="cosine"), epoch, 300) for epoch in (1, 150, 300)]
    assert values == pytest.approx([0.0, 0.4, 0.8], abs=1e-4)


def test_no_trust_is_the_cross_entropy() -> None:
    assert pskd(trust=0.0, answers=ANSWERS)(last_epoch()).total.item() == pytest.approx(0.826856, abs=DIGITS)


def test_an_answer_equal_to_the_present_one_scales_the_gradient_of_the_labels() -> None:
    signals = last_epoch(grad=True)
    present = signals.student["weak"].detach().softmax(dim=-1).tolist()
    found_BC = gradient(pskd(trust=0.4, answers=present)(signals).total, signals)
    labels_BC = (logits(WEAK_STUDENT).softmax(dim=-1) - F.one_hot(torch.tensor(LABELS), 4)) / 2
    torch.testing.assert_close(found_BC, 0.6 * labels_BC, rtol=1e-6, atol=1e-8)


def test_the_gradient_agrees_with_finite_differences() -> None:
    def total(student_BC: Tensor) -> Tensor:
        signals = signals_of(student_BC, None, LABELS, epoch=10, rows_B=ROWS)
        value: Tensor = pskd(trust=0.4, answers=ANSWERS)(signals).total
        return value

    assert torch.autograd.gradcheck(total, logits(WEAK_STUDENT, grad=True), rtol=1e-6, atol=1e-9)


def told(objective: PskdObjective, student_BC: Tensor, epoch: int) -> Losses:
    losses: Losses = objective(signals_of(student_BC, None, LABELS, epoch=epoch, rows_B=ROWS))
    return losses


@pytest.mark.parametrize("half", [False, True])
def test_an_epoch_hears_the_answers_of_the_one_before_and_keeps_its_own(half: bool) -> None:
    objective = PskdObjective(PskdConfig(max_trust=0.8, half=half), Setting(8, 4, epochs=10))
    first_BC, second_BC = logits(WEAK_STUDENT), logits(WEAK_STUDENT).flip(1)
    one = told(objective, first_BC, 1)
    assert one.gauges["answered"].item() == 0.0
    assert one.total.item() == pytest.approx(0.826856, abs=1e-5)
    two = told(objective, second_BC, 2)
    assert two.gauges["answered"].item() == 1.0
    own = -(first_BC.softmax(-1) * second_BC.log_softmax(-1)).sum(-1).mean()
    assert two.terms["own"].item() == pytest.approx(own.item(), rel=1e-3 if half else 1e-6)
    kept_BC = objective.answers_NC[ROWS].double()
    torch.testing.assert_close(kept_BC, second_BC.softmax(-1), rtol=1e-3 if half else 1e-6, atol=1e-6)
    assert objective.answered_N.sum() == 2


@pytest.mark.parametrize("half", [False, True])
def test_of_a_sample_that_comes_twice_the_last_answer_is_kept(half: bool) -> None:
    objective = PskdObjective(PskdConfig(half=half), Setting(8, 4, epochs=10))
    student_BC = logits([*WEAK_STUDENT, [2.0, 0.0, 0.0, 0.0]])
    signals = signals_of(student_BC, None, [0, 2, 0], epoch=1, rows_B=torch.tensor([5, 2, 5]))
    objective(signals)
    kept_BC = objective.answers_NC[[2, 5]].double()
    expected_BC = student_BC[[1, 2]].softmax(-1)
    torch.testing.assert_close(kept_BC, expected_BC, rtol=1e-3 if half else 1e-6, atol=1e-6)
    assert objective.answered_N.nonzero().flatten().tolist() == [2, 5]


def test_the_table_comes_back_with_the_state() -> None:
    objective = pskd(trust=0.8)
    told(objective, logits(WEAK_STUDENT), 1)
    other = pskd(trust=0.8)
    other.load_state_dict(objective.state_dict())
    student_BC = logits(WEAK_STUDENT).flip(0)
    assert told(other, student_BC, 2).total.item() == told(objective, student_BC, 2).total.item()


def test_samples_without_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="pskd needs the rows of its samples"):
        pskd(trust=0.8)(one_view(rows_B=None))
