"""HSAKD: the worked total, joint logits of branches, and what the student does not get."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.numerics.reference import DIGITS
from tests.numerics.representation.rotated_signals import RandomTurns, rotated_signals
from trainables.config.objectives import HsakdConfig
from trainables.objectives import HsakdObjective
from trainables.signals import Losses, Setting

STUDENT = [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.0, 0.0]]
TEACHER = [[2.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
PLACES = torch.arange(32, dtype=torch.float64).reshape(4, 8)


def rows(values: list[list[float]]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def hsakd(student_RC: Tensor, teacher_RC: Tensor, joint: Tensor, taught: Tensor, **fields: Any) -> Losses:
    """One image, two classes, one branch, whose joint logits are the map itself."""
    setting = Setting(8, 2, 3, student_shapes={"stage1": (8, 1, 1)})
    objective = HsakdObjective(HsakdConfig(stages=1, **fields), setting)
    objective.branches.branches[0] = nn.Flatten()
    signals = rotated_signals(
        student_RC,
        teacher_RC,
        torch.tensor([0]),
        student={"stage1": joint[:, :, None, None]},
        teacher={"branch1": taught},
    )
    return objective(signals)


def test_the_objective_has_the_worked_value() -> None:
    """Check 2."""
    losses = hsakd(rows(STUDENT), rows(TEACHER), PLACES.sin(), PLACES.cos())
    expected = {"ce": 0.313262, "kd": 0.121671, "branches": 0.476221, "branch1": 0.476221}
    assert {name: term.item() for name, term in losses.terms.items()} == pytest.approx(expected, abs=DIGITS)
    assert losses.total.item() == pytest.approx(0.911154, abs=DIGITS)


def test_weights_count_each_part() -> None:
    losses = hsakd(
        rows(STUDENT), rows(TEACHER), PLACES.sin(), PLACES.cos(), ce_weight=2, kd_weight=3, branch_weight=0.5
    )
    expected = 2 * 0.313262 + 3 * 0.121671 + 0.5 * 0.476221
    assert losses.total.item() == pytest.approx(expected, abs=4 * DIGITS)


def test_a_student_that_is_the_teacher_pays_for_labels_alone() -> None:
    """Check 4."""
    losses = hsakd(rows(TEACHER), rows(TEACHER), PLACES.cos(), PLACES.cos())
    assert losses.total.item() == pytest.approx(losses.terms["ce"].item(), abs=1e-14)


def test_each_branch_is_a_term_and_they_add_up() -> None:
    case = RandomTurns(HsakdConfig(stages=3))
    terms = case.objective()(case.signals()).terms
    each = [terms[f"branch{number}"].item() for number in (1, 2, 3)]
    assert terms["branches"].item() == pytest.approx(sum(each))
    assert min(each) > 0


def test_gradient_of_the_branches_flows_into_the_student() -> None:
    case = RandomTurns(HsakdConfig(stages=2, ce_weight=0.0, kd_weight=0.0))
    objective = case.objective()
    objective(case.signals()).total.backward()  # type: ignore[no-untyped-call]
    for map_BCHW in case.student.values():
        assert map_BCHW.grad is not None
        assert map_BCHW.grad.abs().max() > 0
    assert all(target.grad is None for target in case.targets)


def test_labels_of_turned_images_change_nothing_but_the_cross_entropy() -> None:
    """No cross-entropy of joint labels."""
    case = RandomTurns(HsakdConfig(stages=1, ce_weight=0.0))
    objective = case.objective()
    one, other = (
        objective(case.signals(labels_B=labels)).total
        for labels in (torch.zeros(3).long(), torch.ones(3).long())
    )
    assert one.item() == other.item()


def test_a_stage_without_a_map_is_named() -> None:
    with pytest.raises(ValueError, match="hsakd has a branch on stage2; the setting has no shape"):
        HsakdObjective(HsakdConfig(), Setting(8, 2, 3, student_shapes={"stage1": (8, 4, 4)}))
