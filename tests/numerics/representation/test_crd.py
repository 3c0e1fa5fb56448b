"""Pairs of embeddings told apart: worked numbers, constants, banks, their state, and degenerate batches."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Final

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.numerics.reference import DIGITS
from tests.numerics.representation.embedding_signals import (
    is_finite,
    numbers,
    random,
    setting_for,
    signals_of,
)
from trainables.config.objectives import CrdConfig
from trainables.errors import TrialFailed
from trainables.objectives import CrdObjective
from trainables.objectives.representation.terms.noise_contrast import (
    Counts,
    Entries,
    contrast,
    enter,
    log_constant,
)
from trainables.signals import Labelling, Signals

# B = samples in the batch, N = training samples, L = candidates of a batch, D = numbers in an embedding

UNIT_STUDENT: Final = [[1.0, 0.0], [0.6, 0.8]]
UNIT_TEACHER: Final = [[0.8, 0.6], [0.0, 1.0]]
STUDENT_BANK: Final = [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [-1.0, 0.0]]
TEACHER_BANK: Final = [[0.0, 1.0], [1.0, 0.0], [0.8, 0.6], [0.6, -0.8]]
ROWS: Final = torch.tensor([0, 1])
COUNTS: Final = Counts(negatives=2, n_samples=4)


def worked(bank: list[list[float]]) -> Entries:
    """Rows 2 and 3 are the negatives of both samples."""
    bank_ND = numbers(bank)
    return Entries(bank_ND[ROWS], bank_ND[2:], torch.ones(2, 2))


def lengthened(entries: Entries, *, positive: float = 1.0, candidates: list[float] | None = None) -> Entries:
    """With scores that are so many times as large."""
    factor_L = numbers(candidates or [1.0] * len(entries.candidates_LD))
    return replace(
        entries,
        positive_BD=positive * entries.positive_BD,
        candidates_LD=factor_L[:, None] * entries.candidates_LD,
    )


def crd(given: Tensor, taught_BD: Tensor, labels: list[int] | None = None, **fields: Any) -> CrdObjective:
    torch.manual_seed(0)
    config = CrdConfig(**{"dim": 4, **fields})
    return CrdObjective(config, setting_for(given, taught_BD, labels=labels)).to(given.dtype)


def reference_objective(**fields: Any) -> CrdObjective:
    """With the worked banks, and layers that change nothing; rows 2 and 3 are of another class."""
    unit_BD = numbers(UNIT_STUDENT)
    objective = crd(unit_BD, unit_BD, [0, 0, 1, 1], **{"dim": 2, "tau": 0.5, "negatives": 2, **fields})
    for layer in (objective.student_layer, objective.teacher_layer):
        torch.nn.init.eye_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    objective.student_bank_ND.copy_(numbers(STUDENT_BANK))
    objective.teacher_bank_ND.copy_(numbers(TEACHER_BANK))
    return objective


def reference_signals(student_BD: Tensor | None = None, **more: Any) -> Signals:
    student_BD = numbers(UNIT_STUDENT) if student_BD is None else student_BD
    return signals_of(student_BD, numbers(UNIT_TEACHER), **{"labels": [0, 0], "rows_B": ROWS, **more})


@pytest.mark.parametrize(("negatives", "both"), [(16384, 21.408182), (2, 3.819085)])
def test_scores_of_chance_have_the_closed_form(negatives: int, both: float) -> None:
    """At one training sample each score of 1 / N is 1, and eps is lost in it."""
    unit_BD = numbers([[1.0, 0.0]] * 2)
    entries = Entries(unit_BD, unit_BD[:1].expand(negatives, -1), torch.ones(2, negatives))
    one = contrast(unit_BD, entries, tau=0.5, log_z=numbers(2.0), counts=Counts(negatives, 1))
    closed = math.log(1 + negatives) + negatives * math.log(1 + 1 / negatives)
    assert one.item() == pytest.approx(closed, abs=2e-7)
    assert 2 * one.item() == pytest.approx(both, abs=DIGITS)


def test_the_constants_and_both_contrasts_have_the_worked_values() -> None:
    total = 0.0
    for unit, bank, constant, value in (
        (UNIT_STUDENT, TEACHER_BANK, 13.323623, 2.442295),
        (UNIT_TEACHER, STUDENT_BANK, 16.878651, 1.473123),
    ):
        log_z = log_constant(numbers(unit), worked(bank), tau=0.5, counts=COUNTS)
        assert log_z.exp().item() == pytest.approx(constant, abs=DIGITS)
        found = contrast(numbers(unit), worked(bank), tau=0.5, log_z=log_z, counts=COUNTS)
        assert found.item() == pytest.approx(value, abs=DIGITS)
        total += found.item()
    assert total == pytest.approx(3.915418, abs=DIGITS)


def test_the_objective_has_the_worked_values_and_renews_its_banks_after() -> None:
    objective = reference_objective(momentum=0.5)
    losses = objective(reference_signals())
    assert losses.gauges["negatives"].item() == 2
    assert losses.terms["crd_student"].item() == pytest.approx(2.442295, abs=DIGITS)
    assert losses.terms["crd_teacher"].item() == pytest.approx(1.473123, abs=DIGITS)
    expected = losses.terms["ce"].item() + 0.8 * 3.915418
    assert losses.total.item() == pytest.approx(expected, abs=DIGITS)
    assert objective.log_constants_2.exp().tolist() == pytest.approx([13.323623, 16.878651], abs=DIGITS)
    student, teacher = objective.student_bank_ND, objective.teacher_bank_ND
    assert student[1].tolist() == pytest.approx([0.316228, 0.948683], abs=DIGITS)
    assert teacher[0].tolist() == pytest.approx([0.447214, 0.894427], abs=DIGITS)
    assert teacher[1].tolist() == pytest.approx([0.707107, 0.707107], abs=DIGITS)
    assert student[0].tolist() == [1.0, 0.0]
    assert student[2:].tolist() == STUDENT_BANK[2:]
    assert teacher[2:].tolist() == TEACHER_BANK[2:]


def test_a_better_positive_lowers_the_loss_and_a_better_negative_raises_it() -> None:
    """All scores here are above 1: longer entries have larger ones."""
    unit_BD = numbers([[0.6, 0.8]])
    entries = Entries(numbers([[0.8, 0.6]]), numbers([[0.0, 1.0], [1.0, 0.0]]), torch.ones(1, 2))
    fixed: dict[str, Any] = {"tau": 0.5, "log_z": numbers(1.0), "counts": COUNTS}
    plain = contrast(unit_BD, entries, **fixed)
    assert contrast(unit_BD, lengthened(entries, positive=1.1), **fixed) < plain
    for candidates in ([1.1, 1.0], [1.0, 1.1]):
        assert contrast(unit_BD, lengthened(entries, candidates=candidates), **fixed) > plain


def test_a_candidate_that_was_not_drawn_counts_nothing_and_one_drawn_twice_counts_twice() -> None:
    unit_BD, positive_BD, candidates_LD = random(1, 3, 5), random(2, 3, 5), random(3, 4, 5)
    times_BL = torch.tensor([[2, 0, 1, 0], [0, 1, 1, 1], [0, 0, 0, 3]])
    fixed: dict[str, Any] = {"tau": 0.5, "counts": Counts(negatives=3, n_samples=9)}
    together = Entries(positive_BD, candidates_LD, times_BL)
    alone = [
        Entries(
            positive_BD[row : row + 1],
            candidates_LD[[place for place in range(4) for _ in range(times_BL[row, place])]],
            torch.ones(1, 3),
        )
        for row in range(3)
    ]
    log_z = log_constant(unit_BD, together, **fixed)
    constants = [log_constant(unit_BD[row : row + 1], alone[row], **fixed).exp() for row in range(3)]
    assert log_z.exp().item() == pytest.approx(sum(constants).item() / 3, rel=1e-12)  # type: ignore[union-attr]
    each = [contrast(unit_BD[row : row + 1], alone[row], log_z=log_z, **fixed).item() for row in range(3)]
    found = contrast(unit_BD, together, log_z=log_z, **fixed)
    assert found.item() == pytest.approx(sum(each) / 3, rel=1e-12)


def test_the_log_space_form_is_the_formula_and_its_gradient_that_of_differences() -> None:
    unit_BD, entries = random(1, 3, 5, grad=True), Entries(random(2, 3, 5), random(3, 4, 5), torch.ones(3, 4))
    log_z, q, eps = numbers(3.0), 4 / 50, 1e-7
    o_B = ((unit_BD * entries.positive_BD).sum(dim=-1) / 0.5 - log_z).exp()
    o_BL = (unit_BD @ entries.candidates_LD.T / 0.5 - log_z).exp()
    sum_B = (o_B / (o_B + q + eps)).log() + (q / (o_BL + q + eps)).log().sum(dim=-1)

    def found(unit_BD: Tensor) -> Tensor:
        return contrast(unit_BD, entries, tau=0.5, log_z=log_z, counts=Counts(4, 50))

    assert found(unit_BD).item() == pytest.approx(-sum_B.mean().item(), rel=1e-12)
    assert torch.autograd.gradcheck(found, unit_BD, rtol=1e-6, atol=1e-9)


def test_no_gradient_reaches_the_banks_and_all_reaches_embeddings_and_layers() -> None:
    unit_BD, bank_ND = numbers(UNIT_STUDENT, grad=True), numbers(TEACHER_BANK, grad=True)
    entries = Entries(bank_ND[ROWS], bank_ND[2:], torch.ones(2, 2))
    found = contrast(unit_BD, entries, tau=0.5, log_z=numbers(2.0), counts=COUNTS)
    found.backward()  # type: ignore[no-untyped-call]
    assert bank_ND.grad is None
    assert unit_BD.grad is not None
    objective, taught_BD = reference_objective(), numbers(UNIT_TEACHER, grad=True)
    student_BD = numbers([[2.0, 1.0], [0.3, -0.8]], grad=True)
    losses = objective(signals_of(student_BD, taught_BD, labels=[0, 0], rows_B=ROWS))
    losses.total.backward()  # type: ignore[no-untyped-call]
    assert taught_BD.grad is None
    assert student_BD.grad is not None
    assert student_BD.grad.abs().min() > 0
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in objective.parameters())
    assert not any(buffer.requires_grad for buffer in objective.buffers())


def test_the_gradient_is_that_of_differences() -> None:
    given_BD, taught_BD = random(1, 3, 5, grad=True), random(2, 3, 6)

    def total(given_BD: Tensor) -> Tensor:
        objective = crd(given_BD, taught_BD, kd_weight=1.0)
        objective.log_constants_2.fill_(3.0)  # else the first batch fixes what is no part of the gradient
        return objective(signals_of(given_BD, taught_BD)).total

    assert torch.autograd.gradcheck(total, given_BD, rtol=1e-6, atol=1e-8)


def test_the_layers_have_the_papers_parameters_and_the_banks_their_range() -> None:
    given_BD = torch.zeros(2, 256)
    objective = crd(given_BD, given_BD, dim=128)
    assert sum(parameter.numel() for parameter in objective.parameters()) == 65_792
    for name in objective.row_tables:
        bank_ND = objective.get_buffer(name)
        assert bank_ND.shape == (12, 128)
        bound = 1 / math.sqrt(128 / 3)
        assert 0.9 * bound < bank_ND.abs().max() <= bound
        assert bank_ND.min() < 0 < bank_ND.max()


def test_the_constants_are_those_of_the_first_batch_and_come_back_with_the_state() -> None:
    given_BD, taught_BD = random(1, 3, 5), random(2, 3, 6)
    objective = crd(given_BD, taught_BD)
    assert objective.log_constants_2.tolist() == [math.inf, math.inf]
    objective(signals_of(given_BD, taught_BD))
    first = objective.log_constants_2.tolist()
    objective(signals_of(5 - given_BD, 5 - taught_BD))
    assert objective.log_constants_2.tolist() == first
    state = {name: value.clone() for name, value in objective.state_dict().items()}
    layers = {"student_layer.weight", "student_layer.bias", "teacher_layer.weight", "teacher_layer.bias"}
    assert state.keys() == {*layers, *objective.row_tables, "log_constants_2"}
    other = CrdObjective(CrdConfig(dim=4), setting_for(given_BD, taught_BD)).double()
    other.load_state_dict(state)
    values = []
    for one in (objective, other):
        torch.manual_seed(3)
        values.append(one(signals_of(given_BD, taught_BD)).total.item())
    assert values[0] == values[1]
    assert other.log_constants_2.tolist() == first


def test_the_bank_is_read_before_it_is_renewed() -> None:
    given_BD, taught_BD = random(1, 3, 5), random(2, 3, 6)
    totals = []
    for momentum in (0.0, 0.9):
        objective = crd(given_BD, taught_BD, momentum=momentum)
        steps = [objective(signals_of(given_BD, taught_BD)).total.item() for _ in range(2)]
        totals.append(steps)
    assert totals[0][0] == totals[1][0]
    assert totals[0][1] != totals[1][1]


def test_of_a_row_that_comes_twice_the_last_embedding_is_kept_from_one_entry() -> None:
    bank_ND, unit_BD = numbers(STUDENT_BANK), numbers([[0.0, -1.0], [0.6, 0.8], [0.8, -0.6]])
    enter(bank_ND, torch.tensor([2, 0, 2]), unit_BD, momentum=0.5)
    expected_ND = numbers(STUDENT_BANK)
    expected_ND[0] = F.normalize(numbers([0.5 + 0.3, 0.4]), dim=0)
    expected_ND[2] = F.normalize(numbers([0.3 + 0.4, 0.4 - 0.3]), dim=0)
    torch.testing.assert_close(bank_ND, expected_ND, rtol=1e-12, atol=1e-12)


def test_soft_targets_are_added_at_their_weight() -> None:
    losses = reference_objective(kd_weight=1.0)(reference_signals())
    terms = losses.terms
    expected = terms["ce"] + 0.8 * (terms["crd_student"] + terms["crd_teacher"]) + terms["kd"]
    assert terms["kd"].item() == pytest.approx(0.611971, abs=DIGITS)
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("scale", [[[3.0]], [[0.5], [4.0]]], ids=["all", "rows"])
def test_lengths_of_embeddings_do_not_count_where_the_layer_has_no_bias(scale: list[list[float]]) -> None:
    student_BD = numbers([[2.0, 1.0], [0.3, -0.8]])
    plain = reference_objective()(reference_signals(student_BD)).total
    scaled = reference_objective()(reference_signals(numbers(scale) * student_BD)).total
    assert scaled.item() == pytest.approx(plain.item(), rel=1e-12)


@pytest.mark.parametrize("change", ["turn", "shift"])
def test_a_turn_and_a_shift_are_heard_and_can_be_taken_back_by_the_layer(change: str) -> None:
    student_BD = numbers([[2.0, 1.0], [0.3, -0.8]])
    plain = reference_objective()(reference_signals(student_BD)).total
    turn_DD, shift_D = numbers([[0.6, -0.8], [0.8, 0.6]]), numbers([1.0, -2.0])
    changed_BD = student_BD @ turn_DD.T if change == "turn" else student_BD + shift_D
    assert abs(reference_objective()(reference_signals(changed_BD)).total - plain) > 1e-2
    objective = reference_objective()
    if change == "turn":
        objective.student_layer.weight = torch.nn.Parameter(turn_DD.T.contiguous())
    else:
        objective.student_layer.bias = torch.nn.Parameter(-shift_D)
    assert objective(reference_signals(changed_BD)).total.item() == pytest.approx(plain.item(), rel=1e-12)


def test_the_loss_is_not_0_where_student_and_teacher_are_equal() -> None:
    unit_BD = numbers(UNIT_STUDENT)
    losses = reference_objective()(signals_of(unit_BD, unit_BD, labels=[0, 0], rows_B=ROWS))
    assert losses.terms["crd_student"].item() > 1


@pytest.mark.parametrize("labels", [[0], [1, 1, 1]], ids=["one sample", "one class"])
@pytest.mark.parametrize("fields", [{}, {"positive": "relaxed", "draw": "sample"}, {"when_short": "repeat"}])
def test_a_batch_of_one_class_of_two_has_a_finite_gradient(labels: list[int], fields: dict[str, Any]) -> None:
    rows = len(labels)
    for given_BD in (random(1, rows, 5, grad=True), torch.zeros(rows, 5).double().requires_grad_()):
        taught_BD = random(2, rows, 6)
        config = CrdConfig(dim=4, **{**fields, "negatives": 20})
        setting = setting_for(given_BD, taught_BD, labels=[0, 1] * 4, n_classes=2)
        objective = CrdObjective(config, setting).double()
        own_BC = random(3, rows, 2, grad=True)
        signals = signals_of(given_BD, taught_BD, own_BC=own_BC, teacher_BC=random(4, rows, 2), labels=labels)
        assert is_finite(objective(signals).total, [given_BD, own_BC, *objective.parameters()])


def test_small_temperatures_stay_finite_in_fp32_and_autocast_changes_nothing() -> None:
    given_BD = random(1, 6, 5, dtype=torch.float32, grad=True)
    taught_BD = random(2, 6, 6, dtype=torch.float32)
    totals = []
    for enabled in (False, True):
        objective = crd(given_BD, taught_BD, tau=0.005, momentum=0.0)
        for _ in range(2):  # the second batch meets its own embeddings: cosines of 1
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                losses = objective(signals_of(given_BD, taught_BD))
        assert losses.total.dtype is torch.float32
        assert is_finite(losses.total, [given_BD, *objective.parameters()])
        totals.append(losses.total.item())
    assert totals[0] == totals[1]


def test_unlabelled_samples_are_anchors_and_no_part_of_the_labels() -> None:
    given_BD, taught_BD = random(1, 3, 5), random(2, 3, 6)
    labels = [0, 1, 2, 0, 1, 2, -1, -1]
    rows_B = torch.tensor([0, 4, 7])
    part = signals_of(given_BD, taught_BD, labels=[0, 1, -1], rows_B=rows_B, labelling=Labelling(2))
    objective = crd(given_BD, taught_BD, labels)
    before_ND = objective.student_bank_ND.clone()
    losses = objective(part)
    changed = (objective.student_bank_ND != before_ND).any(dim=-1).nonzero().flatten()
    assert changed.tolist() == rows_B.tolist()
    alone = crd(given_BD, taught_BD, labels)(
        signals_of(given_BD[:2], taught_BD[:2], labels=[0, 1], rows_B=rows_B[:2])
    )
    assert losses.terms["ce"].item() == alone.terms["ce"].item()
    assert losses.terms["crd_student"].item() != alone.terms["crd_student"].item()


def test_what_is_missing_is_refused() -> None:
    given_BD, taught_BD = random(1, 2, 5), random(2, 2, 6)
    with pytest.raises(ValueError, match="crd needs the rows of its samples"):
        crd(given_BD, taught_BD)(signals_of(given_BD, taught_BD, rows_B=None))
    with pytest.raises(ValueError, match="give the setting the labels of all samples"):
        CrdObjective(CrdConfig(), setting_for(given_BD, taught_BD, labels_N=None))
    with pytest.raises(ValueError, match="no shape of the teacher's feature 'embedding'"):
        CrdObjective(CrdConfig(), setting_for(given_BD, taught_BD, teacher_shapes={}))
    with pytest.raises(TrialFailed, match=r"the student's embedding has the shape \(7, 5\) for a sample"):
        crd(random(1, 2, 7, 5), taught_BD)
    with pytest.raises(TrialFailed, match="all 3 labelled training samples are of one class"):
        crd(given_BD, taught_BD, [1, 1, 1])
