"""SSKD: likeness of turned images and selected answers, put together with labels and soft targets."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.numerics.reference import DIGITS
from tests.numerics.representation.rotated_signals import RandomTurns, rotated_signals
from tests.numerics.representation.test_rotation_terms import STUDENT_HEAD, TEACHER_HEAD, rows
from trainables.config import Need
from trainables.config.objective_base import LabelUse
from trainables.config.objectives import SskdConfig
from trainables.objectives import SskdObjective
from trainables.objectives.representation.sskd import told_answers_A
from trainables.objectives.representation.terms.rotations import similarity_divergence_A
from trainables.objectives.terms.divergences import kd_divergence_B
from trainables.signals import Losses, Setting, Signals

SETTING = Setting(8, 3, 3, student_shapes={"embedding": (2,)}, teacher_shapes={"ss_head": (2,)})


def logits(seed: int) -> Tensor:
    return torch.randn(8, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def signals(student: list[list[int]] = STUDENT_HEAD, *, student_RC: Tensor | None = None) -> Signals:
    return rotated_signals(
        logits(0) if student_RC is None else student_RC,
        logits(1),
        torch.tensor([0, 2]),
        student={"embedding": rows(student)},
        teacher={"ss_head": rows(TEACHER_HEAD)},
    )


def sskd(given: Signals, **fields: float) -> Losses:
    objective = SskdObjective(SskdConfig(**fields), SETTING)
    objective.head.layers = nn.Sequential()
    return objective(given)


def test_the_likeness_has_the_worked_value_and_its_invariances() -> None:
    """Check 2 without selection, check 4, and the line of table 7."""
    q, _ = torch.linalg.qr(torch.tensor([[1.0, 2.0], [-3.0, 0.5]], dtype=torch.float64))
    scale = torch.linspace(0.5, 3, 8, dtype=torch.float64)[:, None]
    student, teacher = rows(STUDENT_HEAD), rows(TEACHER_HEAD)

    def likeness(one: Tensor, other: Tensor) -> float:
        return 0.25 * similarity_divergence_A(one, other, temperature=0.5).mean().item()

    for one in (student, student @ q, 3 * student, scale * student):
        assert likeness(one, teacher) == pytest.approx(0.031515, abs=DIGITS)
    for other in (teacher @ q, 3 * teacher, scale * teacher):
        assert likeness(student, other) == pytest.approx(0.031515, abs=DIGITS)
    assert likeness(student + 1, teacher) != pytest.approx(0.031515, abs=1e-3)
    assert likeness(teacher, teacher) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(
    ("ratio", "kept"), [(1.0, [0, 1, 2, 3, 4, 5]), (0.75, [0, 1, 2, 3, 5]), (0.0, [0, 2, 3, 5])]
)
def test_the_likeness_is_of_the_rows_that_are_kept(ratio: float, kept: list[int]) -> None:
    rows_A = 0.25 * similarity_divergence_A(rows(STUDENT_HEAD), rows(TEACHER_HEAD), temperature=0.5)
    losses = sskd(signals(), ratio_ss=ratio)
    assert losses.terms["ss"].item() == pytest.approx(rows_A[kept].mean().item())
    assert losses.gauges["kept_ss"].item() == pytest.approx(len(kept) / 6)


def test_answers_to_turned_images_are_selected_by_the_place_of_the_label() -> None:
    turned = [1, 2, 3, 5, 6, 7]
    student_AC, teacher_AC = logits(0)[turned], logits(1)[turned]
    labels_A = [0, 0, 0, 2, 2, 2]
    places = [
        sorted(range(3), key=lambda c: -row[c]).index(label)
        for row, label in zip(teacher_AC.tolist(), labels_A, strict=True)
    ]
    wrong = sorted((row for row in range(6) if places[row]), key=lambda row: places[row])
    assert len(wrong) > 1
    kept = sorted({row for row in range(6) if not places[row]} | set(wrong[: len(wrong) // 2]))
    found_A = told_answers_A(teacher_AC, torch.tensor([0, 2]), ratio=0.5)
    assert found_A.nonzero().flatten().tolist() == kept
    kl_A = kd_divergence_B(student_AC, teacher_AC, temperature=4.0)
    assert sskd(signals(), ratio_tf=0.5).terms["tf"].item() == pytest.approx(kl_A[kept].mean().item())
    assert sskd(signals()).terms["tf"].item() == pytest.approx(kl_A.mean().item())


def test_the_objective_adds_its_terms_by_the_papers_weights() -> None:
    losses = sskd(signals())
    terms = {name: term.item() for name, term in losses.terms.items()}
    upright = logits(0)[[0, 4]]
    assert terms["ce"] == pytest.approx(F.cross_entropy(upright, torch.tensor([0, 2])).item())
    kd = kd_divergence_B(upright, logits(1)[[0, 4]], temperature=4.0).mean().item()
    assert terms["kd"] == pytest.approx(kd)
    weights = {"ce": 0.1, "kd": 0.9, "tf": 2.7, "ss": 10.0}
    assert losses.total.item() == pytest.approx(sum(weights[name] * terms[name] for name in weights))


def test_a_student_that_is_the_teacher_pays_for_labels_alone() -> None:
    """Check 1."""
    terms = sskd(signals(TEACHER_HEAD, student_RC=logits(1))).terms
    assert all(terms[name].item() == pytest.approx(0, abs=1e-14) for name in ("kd", "tf", "ss"))


def test_one_image_has_no_likeness_to_compare() -> None:
    case = RandomTurns(SskdConfig(), images=1)
    assert case.objective()(case.signals()).terms["ss"].item() == 0


def test_no_gradient_reaches_the_teachers_head() -> None:
    """Check 5."""
    case = RandomTurns(SskdConfig(ratio_tf=0.5))
    objective = case.objective()
    objective(case.signals()).total.backward()  # type: ignore[no-untyped-call]
    assert all(target.grad is None for target in case.targets)
    assert all(value.grad is not None for value in objective.parameters())


def test_labels_and_all_classes_are_needed_where_answers_are_left_out() -> None:
    assert (SskdConfig().uses_label, SskdConfig().needed) == (LabelUse.NONE, frozenset())
    selective = SskdConfig(ratio_tf=0.5)
    assert selective.uses_label is LabelUse.TARGET_CLASS
    assert selective.needed == {Need.ALL_CLASSES}
