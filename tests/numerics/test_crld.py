"""Cross-view consistency: every worked number, both gates and the edges of a threshold."""

from __future__ import annotations

from typing import Final

import pytest
import torch

from tests.numerics.crld_views import Views, crld, fixture
from tests.numerics.reference import (
    LABELS,
    STRONG_STUDENT,
    STRONG_TEACHER,
    WEAK_STUDENT,
    WEAK_TEACHER,
    Rows,
    logits,
)
from trainables.config import CrldConfig, Gate
from trainables.objectives import CrldObjective
from trainables.objectives.terms.divergences import kd_divergence_B
from trainables.signals import Signals, TeacherSignal

# B = samples in the batch, C = classes

CE_SUM: Final = 2.001681


def test_one_logit_tensor_everywhere_leaves_the_two_cross_entropies() -> None:
    same_BC, labels_B = logits(WEAK_STUDENT), torch.tensor(LABELS)
    losses = crld(Views(same_BC, same_BC, same_BC, same_BC, labels_B), 0.0, 0.0)
    assert losses.terms["within"].item() == 0.0
    assert losses.terms["cross"].item() == 0.0
    assert losses.total.item() == pytest.approx(2 * 0.826856, abs=2e-6)


def test_a_student_equal_to_the_teacher_on_each_view_still_pays_the_cross_term() -> None:
    weak_BC, strong_BC = logits(WEAK_TEACHER), logits(STRONG_TEACHER)
    losses = crld(Views(weak_BC, strong_BC, weak_BC, strong_BC, torch.tensor(LABELS)), 0.0, 0.0)
    assert losses.terms["within"].item() == 0.0
    assert losses.terms["cross"].item() > 0.1


def test_identical_views_and_no_thresholds_give_two_ce_and_five_kd() -> None:
    student_BC, teacher_BC = logits(WEAK_STUDENT), logits(WEAK_TEACHER)
    losses = crld(Views(student_BC, student_BC, teacher_BC, teacher_BC, torch.tensor(LABELS)), 0.0, 0.0)
    assert losses.total.item() == pytest.approx(3.351318, abs=6e-7)
    kd = kd_divergence_B(student_BC, teacher_BC, temperature=4.0).mean()
    assert losses.total.item() == pytest.approx(2 * 0.8268560 + 5 * kd.item(), abs=2e-6)


@pytest.mark.parametrize(
    ("student", "teacher", "rows"),
    [
        (WEAK_STUDENT, WEAK_TEACHER, [0.570361, 0.108682]),
        (STRONG_STUDENT, STRONG_TEACHER, [0.076971, 0.101719]),
        (STRONG_STUDENT, WEAK_TEACHER, [0.845241, 0.238584]),
        (WEAK_STUDENT, STRONG_TEACHER, [0.056898, 0.055036]),
    ],
)
def test_the_four_divergences_have_the_worked_values(student: Rows, teacher: Rows, rows: list[float]) -> None:
    value_B = kd_divergence_B(logits(student), logits(teacher), temperature=4.0)
    assert value_B.tolist() == pytest.approx(rows, abs=6e-7)


def test_confidences_and_cross_entropies_have_the_worked_values() -> None:
    signals = fixture().signals()
    assert signals.teacher["weak"].confidence_B.tolist() == pytest.approx([0.830953, 0.579259], abs=6e-7)
    assert signals.teacher["strong"].confidence_B.tolist() == pytest.approx([0.453497, 0.372157], abs=6e-7)
    terms = crld(fixture(), 0.9, 0.2).terms
    assert terms["ce_weak"].item() == pytest.approx(0.826856, abs=6e-7)
    assert terms["ce_strong"].item() == pytest.approx(1.174825, abs=6e-7)
    assert (terms["ce_weak"] + terms["ce_strong"]).item() == pytest.approx(CE_SUM, abs=6e-7)


@pytest.mark.parametrize(
    ("weak_threshold", "strong_threshold", "gate", "within", "cross", "total"),
    [
        (0.8, 0.3, Gate.RELEASED, 0.323666, 0.597880, 2.947952),
        (0.8, 0.3, Gate.OWN_VIEW, 0.374526, 0.478588, 2.990026),
        (0.9, 0.2, Gate.RELEASED, 0.0, 0.597880, 2.300620),
        (0.0, 0.0, Gate.RELEASED, 0.428866, 0.597880, 3.158353),
        (0.0, 0.0, Gate.OWN_VIEW, 0.428866, 0.597880, 3.158353),
        (0.8, 0.4, Gate.RELEASED, 0.323666, 0.451070, 2.874547),
        (0.8, 0.4, Gate.OWN_VIEW, 0.323666, 0.451070, 2.874547),
    ],
)
def test_each_gate_has_the_worked_values(
    weak_threshold: float, strong_threshold: float, gate: Gate, within: float, cross: float, total: float
) -> None:
    losses = crld(fixture(), weak_threshold, strong_threshold, gate)
    assert losses.terms["within"].item() == pytest.approx(within, abs=6e-7)
    assert losses.terms["cross"].item() == pytest.approx(cross, abs=6e-7)
    assert losses.total.item() == pytest.approx(total, abs=6e-7)


def test_the_shipped_defaults_are_those_of_the_released_cifar_recipe() -> None:
    losses = CrldObjective(CrldConfig())(fixture().signals())
    assert losses.total.item() == pytest.approx(2.300620, abs=6e-7)


@pytest.mark.parametrize(
    ("config", "total"),
    [
        (CrldConfig(temperature=1.0, ce_weight=2.0, weak_threshold=0.8, strong_threshold=0.3), 4.610517),
        (
            CrldConfig(
                temperature=2.0, within_weight=4.0, cross_weight=1.0, weak_threshold=0.8, strong_threshold=0.3
            ),
            3.759057,
        ),
    ],
)
def test_other_published_presets_have_the_worked_values(config: CrldConfig, total: float) -> None:
    assert CrldObjective(config)(fixture().signals()).total.item() == pytest.approx(total, abs=6e-7)


def test_the_mean_divides_by_the_batch_and_not_by_the_kept_rows() -> None:
    losses = crld(fixture(), 0.8, 0.3)
    assert losses.gauges["kept_weak"].item() == 0.5
    assert losses.gauges["kept_strong"].item() == 1.0
    assert 2 * losses.terms["within"].item() == pytest.approx(0.647332, abs=1e-6)
    assert losses.terms["within"].item() == pytest.approx(0.323666, abs=6e-7)


def test_a_sample_at_the_threshold_is_kept_and_one_below_is_not() -> None:
    at_B = torch.tensor([0.9, 0.9], dtype=torch.float32)
    below_B = torch.nextafter(at_B, torch.zeros_like(at_B))
    views = fixture()
    for confidence, kept in ((at_B, 1.0), (below_B, 0.0)):
        signals = Signals(
            student=views.signals().student,
            teacher={
                "weak": TeacherSignal(views.weak_teacher_BC, confidence),
                "strong": TeacherSignal(views.strong_teacher_BC, confidence),
            },
            labels_B=views.labels_B,
            epoch=1,
        )
        losses = CrldObjective(CrldConfig(weak_threshold=0.9, strong_threshold=0.9))(signals)
        assert losses.gauges["kept_weak"].item() == kept
        assert losses.gauges["kept_strong"].item() == kept


def test_the_mask_comes_from_the_given_confidence_and_not_from_the_logits() -> None:
    views = fixture()
    sure_B = torch.ones(2)
    signals = Signals(
        student=views.signals().student,
        teacher={
            "weak": TeacherSignal(views.weak_teacher_BC, sure_B),
            "strong": TeacherSignal(views.strong_teacher_BC, sure_B),
        },
        labels_B=views.labels_B,
        epoch=1,
    )
    losses = CrldObjective(CrldConfig())(signals)
    assert losses.gauges["kept_weak"].item() == 1.0
    assert losses.total.item() == pytest.approx(3.158353, abs=6e-7)


def test_a_teacher_that_is_sure_and_wrong_passes_the_gate() -> None:
    views = fixture()
    wrong = Views(
        views.weak_student_BC,
        views.strong_student_BC,
        views.weak_teacher_BC,
        views.strong_teacher_BC,
        torch.tensor([3, 1]),
    )
    assert crld(wrong, 0.8, 0.3).terms["within"].item() == pytest.approx(0.323666, abs=6e-7)


@pytest.mark.parametrize("gate", list(Gate))
def test_all_samples_dropped_gives_exactly_zero_with_zero_gradient(gate: Gate) -> None:
    views = fixture(grad=True)
    config = CrldConfig(ce_weight=0.0, weak_threshold=1.0, strong_threshold=1.0, gate=gate)
    losses = CrldObjective(config)(views.signals())
    assert losses.terms["within"].item() == 0.0
    assert losses.terms["cross"].item() == 0.0
    assert losses.total.item() == 0.0
    assert losses.gauges["kept_weak"].item() == 0.0
    gradients = torch.autograd.grad(losses.total, [views.weak_student_BC, views.strong_student_BC])
    assert all(torch.equal(gradient_BC, torch.zeros_like(gradient_BC)) for gradient_BC in gradients)
