"""Cross-view consistency with another loss in the place of KD."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.numerics.reference import (
    DIGITS,
    LABELS,
    WEAK_STUDENT,
    WEAK_TEACHER,
    agrees_with_differences,
    logits,
    signals_of,
    two_views,
)
from trainables.config import CrldConfig, DistConfig, DkdConfig, Gate
from trainables.config.objectives import CrldBase
from trainables.objectives import CrldObjective, DistObjective, DkdObjective
from trainables.objectives.terms.divergences import kd_divergence_B
from trainables.objectives.terms.relations import batch_gap_B, class_gap_C
from trainables.signals import Losses, Signals

# B = samples in the batch, C = classes
BASES = list(CrldBase)


def crld(signals: Signals | None = None, **fields: Any) -> Losses:
    return CrldObjective(CrldConfig(**fields))(signals or two_views())


def same_views() -> Signals:
    student_BC, teacher_BC = logits(WEAK_STUDENT), logits(WEAK_TEACHER)
    return signals_of(
        {"weak": student_BC, "strong": student_BC}, {"weak": teacher_BC, "strong": teacher_BC}, LABELS
    )


def base_loss(base: CrldBase) -> float:
    """What the base's own objective says of the weak view of F1, without the labels."""
    signals, t = two_views(), 4.0
    student_BC, teacher_BC = signals.student["weak"], signals.teacher["weak"].logits_BC
    if base is CrldBase.DKD:
        terms = DkdObjective(DkdConfig())(signals).terms
        return float(terms["tckd"] + 8 * terms["nckd"])
    if base is CrldBase.DIST:
        terms = DistObjective(DistConfig())(signals).terms
        return float(terms["inter"] + terms["intra"])
    if base is CrldBase.MLLD:
        pair = (student_BC, teacher_BC)
        return sum(
            float(
                kd_divergence_B(*pair, temperature=t).mean()
                + class_gap_C(*pair, temperature=t).mean()
                + batch_gap_B(*pair, temperature=t).mean()
            )
            for t in (2.0, 3.0, 4.0, 5.0, 6.0)
        )
    return float(kd_divergence_B(student_BC, teacher_BC, temperature=t).mean())


@pytest.mark.parametrize("base", BASES)
def test_two_equal_views_without_thresholds_give_the_base_loss_twice(base: CrldBase) -> None:
    losses = crld(same_views(), base=base, weak_threshold=0.0, strong_threshold=0.0)
    assert losses.terms["within"].item() == pytest.approx(2 * base_loss(base), rel=1e-9)
    assert losses.terms["cross"].item() == pytest.approx(2 * base_loss(base), rel=1e-9)


def test_dkd_in_the_place_of_kd_has_the_worked_parts() -> None:
    losses = crld(same_views(), base="dkd", weak_threshold=0.0, strong_threshold=0.0)
    assert losses.terms["within"].item() == pytest.approx(2 * 1.492829, abs=2 * DIGITS)


@pytest.mark.parametrize("gate", list(Gate))
@pytest.mark.parametrize("base", BASES)
def test_a_batch_dropped_as_a_whole_gives_exactly_zero_with_zero_gradient(base: CrldBase, gate: Gate) -> None:
    signals = two_views(grad=True)
    losses = crld(signals, base=base, gate=gate, ce_weight=0.0, weak_threshold=1.0, strong_threshold=1.0)
    assert losses.total.item() == 0.0
    for gradient_BC in torch.autograd.grad(losses.total, list(signals.student.values())):
        assert torch.equal(gradient_BC, torch.zeros_like(gradient_BC))


@pytest.mark.parametrize("gate", list(Gate))
@pytest.mark.parametrize("base", BASES)
def test_a_sample_that_is_dropped_by_both_thresholds_does_not_matter(base: CrldBase, gate: Gate) -> None:
    """Row 1 has confidences of 0.58 and 0.37."""
    signals = two_views()
    moved = {bank: value_BC.clone() for bank, value_BC in signals.student.items()}
    for value_BC in moved.values():
        value_BC[1] += torch.tensor([5.0, -3.0, 1.0, 0.0]).double()
    teachers = {bank: signal.logits_BC for bank, signal in signals.teacher.items()}
    options = {"base": base, "gate": gate, "weak_threshold": 0.8, "strong_threshold": 0.4}
    one, other = crld(signals, **options), crld(signals_of(moved, teachers, LABELS), **options)
    for term in ("within", "cross"):
        assert one.terms[term].item() == pytest.approx(other.terms[term].item(), rel=1e-12)
        assert one.terms[term].item() > 0.0


@pytest.mark.parametrize("base", [CrldBase.KD, CrldBase.DKD])
def test_a_loss_of_each_sample_is_gated_sample_by_sample(base: CrldBase) -> None:
    gated = crld(same_views(), base=base, weak_threshold=0.8, strong_threshold=0.0)
    first = signals_of(
        {bank: value_BC[:1] for bank, value_BC in same_views().student.items()},
        {bank: signal.logits_BC[:1] for bank, signal in same_views().teacher.items()},
        LABELS[:1],
    )
    alone = crld(first, base=base, weak_threshold=0.0, strong_threshold=0.0)
    assert gated.terms["within"].item() == pytest.approx(alone.terms["within"].item() / 2, rel=1e-12)


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("thresholds", [(0.0, 0.0), (0.8, 0.3)])
@pytest.mark.parametrize("base", BASES)
def test_the_gradient_agrees_with_finite_differences(
    base: CrldBase, thresholds: tuple[float, float], standardise: bool
) -> None:
    fixed = two_views()
    teachers = {bank: signal.logits_BC for bank, signal in fixed.teacher.items()}

    def total(student_BC: Tensor) -> Tensor:
        signals = signals_of({**fixed.student, "weak": student_BC}, teachers, LABELS)
        weak, strong = thresholds
        return crld(
            signals, base=base, weak_threshold=weak, strong_threshold=strong, standardise=standardise
        ).total

    assert agrees_with_differences(total, WEAK_STUDENT)


@pytest.mark.parametrize("base", BASES)
def test_no_gradient_reaches_the_teacher(base: CrldBase) -> None:
    signals = two_views(grad=True)
    teachers = {bank: signal.logits_BC.requires_grad_() for bank, signal in signals.teacher.items()}
    crld(signals, base=base, weak_threshold=0.0, standardise=True).total.backward()  # type: ignore[no-untyped-call]
    assert all(value_BC.grad is None for value_BC in teachers.values())


@pytest.mark.parametrize("base", BASES)
def test_autocast_changes_nothing(base: CrldBase) -> None:
    totals = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            totals.append(crld(base=base, weak_threshold=0.0).total.item())
    assert totals[0] == totals[1]
