"""What MLKD, SSKD and HSAKD all hold: gradients, precision, small batches, order, teacher, state."""

from __future__ import annotations

from typing import Final

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.numerics.representation.rotated_signals import RandomTurns
from trainables.config import ObjectiveBase
from trainables.config.objective_base import ROTATED
from trainables.config.objectives import HsakdConfig, MlkdConfig, SskdConfig
from trainables.objectives.representation.terms.distances import direction_distance_B
from trainables.objectives.representation.terms.rotations import similarity_divergence_A
from trainables.signals import Labelling

CONFIGS: Final[dict[str, ObjectiveBase]] = {
    "mlkd": MlkdConfig(),
    "mlkd + kd": MlkdConfig(kd_weight=1.0),
    "sskd": SskdConfig(),
    "sskd selective": SskdConfig(ratio_tf=0.5, ratio_ss=0.5),
    "hsakd": HsakdConfig(stages=2, branch_depth=1),
}
each = pytest.mark.parametrize("name", CONFIGS)


@each
def test_the_student_sees_all_turns_at_once(name: str) -> None:
    config = CONFIGS[name]
    assert config.one_pass
    assert config.banks == config.teacher_banks == ROTATED


@each
def test_the_gradient_is_that_of_differences(name: str) -> None:
    case = RandomTurns(CONFIGS[name], images=2, classes=3, width=3, teacher_width=3)
    objective = case.objective().eval()  # running statistics would change from one difference to the next

    def total(*inputs: Tensor) -> Tensor:
        return objective(case.signals(inputs)).total

    assert torch.autograd.gradcheck(total, case.inputs, rtol=1e-5, atol=1e-7)


@each
@pytest.mark.parametrize(("images", "classes"), [(1, 2), (1, 4), (2, 2), (5, 3)])
@pytest.mark.parametrize("one_class", [False, True])
def test_small_batches_give_finite_losses_and_gradients(
    name: str, images: int, classes: int, one_class: bool
) -> None:
    case = RandomTurns(CONFIGS[name], images=images, classes=classes, dtype=torch.float32)
    labels_B = torch.zeros(images, dtype=torch.int64) if one_class else case.labels_B
    losses = case.objective()(case.signals(labels_B=labels_B))
    assert torch.isfinite(losses.total)
    assert all(torch.isfinite(term) for term in losses.terms.values())
    for gradient in torch.autograd.grad(losses.total, case.inputs, allow_unused=True):
        assert gradient is None or torch.isfinite(gradient).all()


@each
def test_features_of_zeros_give_finite_gradients(name: str) -> None:
    case = RandomTurns(CONFIGS[name], dtype=torch.float32)
    zeros = tuple(torch.zeros_like(value).requires_grad_() for value in case.inputs)
    total = case.objective()(case.signals(zeros)).total
    assert torch.isfinite(total)
    for gradient in torch.autograd.grad(total, zeros):
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    "config", [MlkdConfig(), SskdConfig(ratio_ss=1.0), SskdConfig(ratio_tf=0.0, ratio_ss=0.0), HsakdConfig()]
)
def test_the_order_of_the_images_changes_nothing(config: ObjectiveBase) -> None:
    """Save in SSKD's ratios between 0 and 1: of equally wrong rows, the first ones of the batch count."""
    case = RandomTurns(config, images=5)
    objective = case.objective()
    one = objective(case.signals()).total.item()
    other = objective(case.permuted(torch.tensor([3, 0, 4, 1, 2]))).total.item()
    assert other == pytest.approx(one, rel=1e-10)


@each
def test_it_computes_in_fp32_under_autocast(name: str) -> None:
    case = RandomTurns(CONFIGS[name], dtype=torch.float32)
    objective = case.objective()
    objective.eval()
    plain = objective(case.signals())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = objective(case.signals())
    assert inside.total.dtype == torch.float32
    assert inside.total.item() == plain.total.item()


@each
def test_it_teaches_and_leaves_the_teacher_as_it_is(name: str) -> None:
    case = RandomTurns(CONFIGS[name], images=4)
    objective = case.objective()
    targets = [target.detach().clone() for target in case.targets]
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    first = objective(case.signals()).total
    optimiser = torch.optim.SGD([*objective.parameters(), *case.inputs], lr=0.01)
    for _ in range(10):
        optimiser.zero_grad()
        objective(case.signals()).total.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert objective(case.signals()).total.item() < first.item()
    assert all(torch.equal(*pair) for pair in zip(targets, case.targets, strict=True))
    assert all(target.grad is None for target in case.targets)
    trained = {name for name, _ in objective.named_parameters()}
    after = objective.state_dict()
    assert all(not torch.equal(after[name], before[name]) for name in trained if name.endswith("weight"))


@each
def test_a_state_goes_on_in_another_objective(name: str) -> None:
    case = RandomTurns(CONFIGS[name])
    one, other = case.objective(), case.objective()
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter)
    one(case.signals())
    other.load_state_dict(one.state_dict())
    assert one(case.signals()).total.item() == other(case.signals()).total.item()


@pytest.mark.parametrize("config", [MlkdConfig(category_weight=0.0), SskdConfig(), HsakdConfig(stages=1)])
def test_unlabelled_images_are_learned_from_without_a_label(config: ObjectiveBase) -> None:
    case = RandomTurns(config, images=4)
    objective = case.objective().eval()
    labels_B = torch.tensor([1, 0, -1, -1])
    losses = objective(case.signals(labels_B=labels_B, labelling=Labelling(2)))
    upright = case.student_RC.detach()[[0, 4]]
    expected = torch.nn.functional.cross_entropy(upright, labels_B[:2])
    assert losses.terms["ce"].item() == pytest.approx(expected.item())
    (gradient,) = torch.autograd.grad(losses.total, list(case.student.values())[:1])
    assert gradient[8:].abs().max() > 0


@each
def test_warm_up_scales_the_teachers_terms(name: str) -> None:
    config = CONFIGS[name].with_overrides(warmup_epochs=4)
    case = RandomTurns(config)
    objective = case.objective().eval()
    signals = case.signals()
    plain = case.objective(CONFIGS[name]).eval()(signals)
    ce = plain.terms["ce"].item() * CONFIGS[name].ce_weight  # type: ignore[attr-defined]
    expected = ce + (plain.total.item() - ce) / 4
    assert objective(signals).total.item() == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(2, 6), st.integers(2, 6))
def test_likeness_and_directions_follow_their_lines_of_table_7(
    seed: int, images: int, width: int, teacher_width: int
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=generator, dtype=torch.float64)

    student, teacher = draw(4 * images, width), draw(4 * images, teacher_width)
    turn, _ = torch.linalg.qr(draw(width, width))
    lengths = 0.1 + draw(4 * images, 1).abs()
    likeness = similarity_divergence_A(student, teacher, temperature=0.5)
    for same in (student @ turn, 5 * student, lengths * student):
        torch.testing.assert_close(similarity_divergence_A(same, teacher, temperature=0.5), likeness)
    shifted = similarity_divergence_A(student + 1, teacher, temperature=0.5)
    assert not torch.allclose(shifted, likeness, atol=1e-6)
    own = similarity_divergence_A(lengths * student @ turn, student, temperature=0.5)
    torch.testing.assert_close(own, torch.zeros(3 * images).double(), atol=1e-12, rtol=0)

    other = draw(4 * images, width)
    distance_R = direction_distance_B(student, other)
    for same in (5 * student, lengths * student):
        torch.testing.assert_close(direction_distance_B(same, other), distance_R)
    for changed in (student @ turn, student + 1):
        assert not torch.allclose(direction_distance_B(changed, other), distance_R, atol=1e-6)
    assert direction_distance_B(lengths * student, student).max() < 1e-12
