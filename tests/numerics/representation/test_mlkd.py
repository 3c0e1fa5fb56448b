"""MLKD: the worked numbers of its three terms, its heads, and how it puts the terms together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.numerics.reference import DIGITS
from tests.numerics.representation.rotated_signals import RandomTurns, rotated_signals
from trainables.config import Need
from trainables.config.data import UnlabelledConfig
from trainables.config.objective_base import LabelUse
from trainables.config.objectives import MlkdConfig
from trainables.objectives import MlkdObjective
from trainables.objectives.representation.terms.distances import direction_distance_B
from trainables.objectives.representation.terms.rotations import similarity_divergence_A
from trainables.objectives.representation.terms.supervised_contrast import supervised_contrast
from trainables.signals import Labelling, Setting

STUDENT = [[1, 0], [0, 2], [1, 1], [2, 1], [0, 1], [1, 2], [3, 1], [1, 3]]
TEACHER = [[1, 1], [0, 1], [1, 0], [1, 1], [1, 2], [0, 1], [2, 1], [1, 1]]
HEADS = ("individual_head", "relation_head", "student_projection", "teacher_projection")


def rows(values: list[list[int]], *, grad: bool = False) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def individual_loss(student: Tensor, teacher: Tensor) -> Tensor:
    return direction_distance_B(student, teacher).mean()


def relation(student: Tensor, teacher: Tensor) -> float:
    return similarity_divergence_A(student, teacher, temperature=0.5).mean().item()


def test_the_individual_term_has_the_worked_value_and_its_bounds() -> None:
    """Check 1."""
    assert individual_loss(rows(STUDENT), rows(TEACHER)).item() == pytest.approx(0.240968, abs=DIGITS)
    scaled = rows(TEACHER) * torch.arange(1.0, 9.0)[:, None]
    assert individual_loss(scaled, rows(TEACHER)).item() == pytest.approx(0, abs=1e-15)
    assert individual_loss(-scaled, rows(TEACHER)).item() == pytest.approx(4)


def test_the_relational_term_has_the_worked_value_and_its_invariances() -> None:
    """Check 2, and the line of table 7: rotation, global and per-row scale, not shift."""
    student, teacher = rows(STUDENT), rows(TEACHER)
    value = relation(student, teacher)
    assert value == pytest.approx(0.122036, abs=DIGITS)
    q, _ = torch.linalg.qr(torch.tensor([[1.0, 2.0], [-3.0, 0.5]], dtype=torch.float64))
    assert relation(teacher @ q, teacher) == pytest.approx(0, abs=1e-12)
    scale = torch.linspace(0.5, 3, 8, dtype=torch.float64)[:, None]
    for same in (student @ q, 7 * student, scale * student):
        assert relation(same, teacher) == pytest.approx(value, abs=1e-12)
    assert relation(student + 1, teacher) != pytest.approx(value, abs=1e-3)


def test_the_individual_term_follows_its_line_of_table_7() -> None:
    student, teacher = rows(STUDENT), rows(TEACHER)
    value = individual_loss(student, teacher).item()
    scale = torch.linspace(0.5, 3, 8, dtype=torch.float64)[:, None]
    for same in (7 * student, scale * student):
        assert individual_loss(same, teacher).item() == pytest.approx(value, abs=1e-12)
    assert individual_loss(teacher, teacher).item() == 0
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    for other in (student @ turn, student + 1):
        assert individual_loss(other, teacher).item() != pytest.approx(value, abs=1e-3)


@pytest.mark.parametrize(("temperature", "expected"), [(0.07, 1.899368), (0.5, 1.230022)])
def test_the_categorical_term_has_the_worked_value_whichever_network_comes_first(
    temperature: float, expected: float
) -> None:
    """Checks 3 and 4."""
    student, teacher, labels = rows(STUDENT[:3]), rows(TEACHER[:3]), torch.tensor([0, 1, 0]).repeat(2)
    for blocks in ((student, teacher), (teacher, student)):
        found = supervised_contrast(torch.cat(blocks), labels, temperature=temperature).item()
        assert found == pytest.approx(expected, abs=DIGITS)


def test_the_contrast_of_vectors_without_partners_is_zero() -> None:
    for labels in ([0], [0, 1]):
        vectors = rows(STUDENT[: len(labels)], grad=True)
        value = supervised_contrast(vectors, torch.tensor(labels), temperature=0.07)
        assert value.item() == 0
        assert torch.isfinite(torch.autograd.grad(value, vectors)[0]).all()


def test_gradients_of_the_terms_are_those_of_differences() -> None:
    student, teacher, labels = rows(STUDENT, grad=True), rows(TEACHER), torch.tensor([0, 1]).repeat(8)
    assert torch.autograd.gradcheck(lambda one: individual_loss(one, teacher), student)
    assert torch.autograd.gradcheck(
        lambda one: supervised_contrast(torch.cat([one, teacher]), labels, temperature=0.07), student
    )


def test_heads_have_the_stated_sizes() -> None:
    setting = Setting(8, 10, 3, student_shapes={"embedding": (256,)}, teacher_shapes={"embedding": (256,)})
    objective = MlkdObjective(MlkdConfig(), setting)
    counts = {
        name: sum(value.numel() for value in objective.get_submodule(name).parameters()) for name in HEADS
    }
    assert counts["individual_head"] == 2_109_696
    assert counts["relation_head"] == 132_096
    assert counts["student_projection"] + counts["teacher_projection"] == 65_792


def without_heads(**fields: float) -> MlkdObjective:
    setting = Setting(8, 3, 3, student_shapes={"embedding": (2,)}, teacher_shapes={"embedding": (2,)})
    objective = MlkdObjective(MlkdConfig(**fields), setting)
    for name in HEADS:
        setattr(objective, name, nn.Identity())
    return objective


def test_the_objective_adds_its_terms_by_their_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    student_RC, teacher_RC = torch.randn(2, 8, 3, generator=generator, dtype=torch.float64)
    labels_B = torch.tensor([0, 2])
    signals = rotated_signals(
        student_RC,
        teacher_RC,
        labels_B,
        student={"embedding": rows(STUDENT)},
        teacher={"embedding": rows(TEACHER)},
    )
    losses = without_heads(kd_weight=2.0)(signals)
    terms = {name: term.item() for name, term in losses.terms.items()}
    upright = nn.functional.cross_entropy(student_RC[[0, 4]], labels_B).item()
    both = torch.cat([rows(STUDENT), rows(TEACHER)])
    contrast = supervised_contrast(both, labels_B.repeat_interleave(4).repeat(2), temperature=0.07).item()
    assert terms["ce"] == pytest.approx(upright)
    assert terms["individual"] == pytest.approx(0.240968, abs=DIGITS)
    assert terms["relation"] == pytest.approx(0.122036, abs=DIGITS)
    assert terms["category"] == pytest.approx(contrast)
    weights = {"ce": 1.0, "kd": 2.0, "individual": 20.0, "relation": 50.0, "category": 1.0}
    assert losses.total.item() == pytest.approx(sum(weights[name] * terms[name] for name in weights))


def test_gradient_reaches_the_teachers_projection_and_not_the_teacher() -> None:
    case = RandomTurns(MlkdConfig())
    objective = case.objective()
    objective(case.signals()).total.backward()  # type: ignore[no-untyped-call]
    assert isinstance(objective, MlkdObjective)
    found = objective.teacher_projection.weight.grad
    assert found is not None
    assert found.abs().max() > 0
    assert all(target.grad is None for target in case.targets)


def test_batch_statistics_of_the_heads_are_over_all_turns() -> None:
    case = RandomTurns(MlkdConfig())
    objective = case.objective()
    objective(case.signals())
    head = objective.get_submodule("relation_head")
    assert isinstance(head, nn.Sequential)
    with torch.no_grad():
        mean = head[0](case.student["embedding"]).mean(dim=0)
    torch.testing.assert_close(head[1].get_buffer("running_mean"), 0.1 * mean)


def test_without_the_contrast_no_label_is_looked_at() -> None:
    assert MlkdConfig().uses_label is LabelUse.TARGET_CLASS
    assert MlkdConfig(category_weight=0.0).uses_label is LabelUse.NONE
    assert Need.ALL_CLASSES not in MlkdConfig().needed
    unlabelled = UnlabelledConfig(root="there")
    assert MlkdConfig().refuses_unlabelled(unlabelled) is not None
    assert MlkdConfig(category_weight=0.0).refuses_unlabelled(unlabelled) is None


def test_an_image_without_a_label_is_a_class_of_its_own() -> None:
    config = MlkdConfig(category_weight=0.0)
    case = RandomTurns(config, images=3, classes=5)
    objective, labels_B = case.objective(), torch.tensor([0, -1, -1])
    terms = objective(case.signals(labels_B=labels_B, labelling=Labelling(1))).terms
    named = objective(case.signals(labels_B=torch.tensor([0, 3, 4]))).terms
    assert terms["category"].item() == pytest.approx(named["category"].item())
