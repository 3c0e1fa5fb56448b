"""ReviewKD: worked numbers of HCL, parameter counts, gates, sizes, warm-up, precision, single samples."""

from __future__ import annotations

import math
from typing import Any, Final

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.numerics.reference import DIGITS
from tests.numerics.representation.map_signals import (
    Shapes,
    built,
    drawn,
    in_fp32,
    random_features,
    setting_of,
    signals_with,
)
from trainables.config.objectives import ReviewkdConfig
from trainables.errors import TrialFailed
from trainables.objectives import ReviewkdObjective, build_objective
from trainables.objectives.representation.reviewkd import Review, hierarchical_distance
from trainables.signals import Signals

# B = samples in the batch, C = channels, H, W = height and width

STUDENT: Final = {"stage1": (2, 8, 8), "stage2": (3, 4, 4), "stage3": (4, 2, 2), "embedding": (4,)}
TEACHER: Final = {
    "stage1.pre": (3, 8, 8),
    "stage2.pre": (4, 4, 4),
    "stage3.pre": (6, 4, 4),
    "embedding": (6,),
}
CONFIG: Final = ReviewkdConfig(warmup_epochs=1)


def ramp(side: int) -> Tensor:
    return (torch.arange(side * side).double() / side**2).reshape(1, 1, side, side)


def signals_for(rows: int = 4, **more: Any) -> Signals:
    return signals_with(random_features(1, rows, STUDENT), random_features(50, rows, TEACHER), **more)


def parameters_of(student: Shapes, teacher: Shapes, levels: int) -> int:
    objective = build_objective(ReviewkdConfig(levels=levels), setting_of(student, teacher))
    return sum(parameter.numel() for parameter in objective.parameters())


@pytest.mark.parametrize(
    ("student", "expected"),
    [
        (torch.full((2, 3, 8, 8), 0.5).double(), 0.250000),
        (torch.full((2, 3, 3, 3), 0.5).double(), 0.250000),
        (torch.full((2, 3, 1, 1), 0.5).double(), 0.250000),
        (ramp(8), 0.316305),
        (ramp(4), 0.286133),
        (torch.full((1, 1, 1, 1), 2.0).double(), 4.000000),
        (torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).double().tile(4, 4)[None, None], 0.533333),
    ],
)
def test_the_hierarchical_distance_from_zero_has_the_worked_value(student: Tensor, expected: float) -> None:
    found = hierarchical_distance(student, torch.zeros_like(student))
    assert found.item() == pytest.approx(expected, abs=DIGITS)


def test_the_weight_halves_at_each_pool_that_is_used() -> None:
    """Of a 3x3 map the averages of 2x2 and 1x1, with 1/2 and 1/4."""
    student, teacher = drawn(1, 2, 3, 3, 3), drawn(2, 2, 3, 3, 3)

    def of(side: int) -> float:
        ours, theirs = (F.adaptive_avg_pool2d(part, side) for part in (student, teacher))
        return F.mse_loss(ours, theirs).item()

    expected = (F.mse_loss(student, teacher).item() + of(2) / 2 + of(1) / 4) / 1.75
    assert hierarchical_distance(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_the_hierarchical_distance_refuses_maps_of_other_shapes_and_its_gradient_is_that_of_differences() -> (
    None
):
    student, teacher = drawn(1, 2, 2, 5, 5).requires_grad_(), drawn(2, 2, 2, 5, 5)
    with pytest.raises(ValueError, match="differ in shape"):
        hierarchical_distance(student, teacher[:, :1])
    assert torch.autograd.gradcheck(lambda part: hierarchical_distance(part, teacher), student)


def test_the_modules_have_the_papers_parameters_for_resnet8x4_and_resnet18() -> None:
    small = {"stage1": (64, 32, 32), "stage2": (128, 16, 16), "stage3": (256, 8, 8), "embedding": (256,)}
    assert parameters_of(small, before_activation(small), levels=4) == 1_808_774
    large = {f"stage{n}": (32 * 2**n, 112 // 2**n, 112 // 2**n) for n in (1, 2, 3, 4)} | {"embedding": (512,)}
    assert large["stage4"] == (512, 7, 7)
    assert parameters_of(large, before_activation(large), levels=5) == 7_552_904


def before_activation(shapes: Shapes) -> Shapes:
    return {f"{name}.pre" if name.startswith("stage") else name: shape for name, shape in shapes.items()}


def test_gates_are_two_numbers_a_position_between_0_and_1_that_need_not_sum_to_1() -> None:
    objective = built(CONFIG, STUDENT, TEACHER)
    assert isinstance(objective, ReviewkdObjective)
    seen: list[Tensor] = []
    for gate in objective.review.gates:
        gate.register_forward_hook(lambda _module, _given, made: seen.append(made.sigmoid()))
    objective(signals_for())
    assert [tuple(gates.shape) for gates in seen] == [(4, 2, 2, 2), (4, 2, 4, 4), (4, 2, 8, 8)]
    for gates_B2HW in seen:
        assert ((gates_B2HW > 0) & (gates_B2HW < 1)).all()
        assert (gates_B2HW.sum(dim=1) - 1).abs().max() > 1e-3


def test_a_shallow_level_is_a_blend_of_its_own_and_the_deeper_map() -> None:
    """Gates closed by their bias leave one of the two."""
    review = Review([(2, 4, 4), (3, 2, 2)], [(2, 4, 4), (3, 2, 2)]).double()
    maps = [drawn(1, 5, 2, 4, 4), drawn(2, 5, 3, 2, 2)]
    (gate,) = review.gates
    torch.nn.init.zeros_(gate.weight)  # type: ignore[arg-type]
    u_BMHW, deepest_BMHW = (narrow(part) for narrow, part in zip(review.narrowed, maps, strict=True))
    repeated_BMHW = deepest_BMHW.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    for bias, expected in (([40.0, -40.0], u_BMHW), ([-40.0, 40.0], repeated_BMHW), ([0.0, 0.0], None)):
        gate.bias = torch.nn.Parameter(torch.tensor(bias, dtype=torch.float64))
        wanted = (u_BMHW + repeated_BMHW) / 2 if expected is None else expected
        torch.testing.assert_close(review(maps)[0], review.widened[0](wanted))
        torch.testing.assert_close(review(maps)[1], review.widened[1](deepest_BMHW))


def test_levels_get_the_teachers_channels_and_sizes() -> None:
    objective = built(CONFIG, STUDENT, TEACHER)
    assert isinstance(objective, ReviewkdObjective)
    given = [
        drawn(1, 4, *shape) if len(shape) == 3 else drawn(1, 4, *shape, 1, 1) for shape in STUDENT.values()
    ]
    made = [tuple(level.shape[1:]) for level in objective.review(given)]
    assert made == [(3, 8, 8), (4, 4, 4), (6, 4, 4), (6, 1, 1)]


def test_the_channels_between_are_the_deepests_and_512_at_most() -> None:
    for deepest, between in ((48, 48), (2048, 512)):
        review = Review([(8, 4, 4), (deepest, 1, 1)], [(8, 4, 4), (8, 1, 1)])
        assert [gate.in_channels for gate in review.gates] == [2 * between]


def test_the_levels_are_so_many_stages_and_the_embedding() -> None:
    assert ReviewkdConfig().student_features == ("stage1", "stage2", "stage3", "embedding")
    assert ReviewkdConfig().teacher_features == ("stage1.pre", "stage2.pre", "stage3.pre", "embedding")
    two = ReviewkdConfig(levels=2, teacher_maps="post")
    assert (two.student_features, two.teacher_features) == (("stage1", "embedding"),) * 2


def test_the_total_is_the_weighted_sum_of_the_terms_warmed_up_over_twenty_epochs() -> None:
    for epoch, share in ((1, 0.05), (10, 0.5), (20, 1.0), (30, 1.0)):
        objective = built(ReviewkdConfig(ce_weight=0.5, kd_weight=0.9), STUDENT, TEACHER)
        losses = objective(signals_for(epoch=epoch))
        assert set(losses.terms) == {"ce", "review", "kd"}
        taught = 5 * losses.terms["review"] + 0.9 * losses.terms["kd"]
        weighted = 0.5 * losses.terms["ce"] + share * taught
        torch.testing.assert_close(losses.total.detach(), weighted, rtol=1e-12, atol=0)


def test_the_review_is_the_sum_of_its_levels_and_0_where_each_meets_the_teachers() -> None:
    objective, given = built(CONFIG, STUDENT, TEACHER), random_features(1, 4, STUDENT)
    assert isinstance(objective, ReviewkdObjective)
    maps = [part[:, :, None, None] if part.ndim == 2 else part for part in given.values()]
    made = [level.detach() for level in objective.review(maps)]
    met = dict(zip(TEACHER, [*made[:-1], made[-1][:, :, 0, 0]], strict=True))
    assert objective(signals_with(given, met)).terms["review"].item() == pytest.approx(0.0, abs=1e-24)
    off = {name: feature + 0.5 for name, feature in met.items()}
    assert objective(signals_with(given, off)).terms["review"].item() == pytest.approx(4 * 0.25, rel=1e-9)


def test_networks_without_the_stages_are_named() -> None:
    with pytest.raises(
        TrialFailed, match=r"reviewkd compares feature maps.*'stage1' of the student; found none"
    ):
        build_objective(CONFIG, setting_of({"embedding": (4,)}, TEACHER))
    message = (
        r"'stage1.pre' of the teacher; found none; .*, `teacher_maps: post` \(the map after the activation\)"
    )
    with pytest.raises(TrialFailed, match=message):
        build_objective(CONFIG, setting_of(STUDENT, STUDENT))
    with pytest.raises(TrialFailed, match=r"'stage4' of the student; found none"):
        build_objective(ReviewkdConfig(levels=5), setting_of(STUDENT, TEACHER))


@pytest.mark.parametrize("name", STUDENT)
def test_the_gradient_to_each_level_is_that_of_differences(name: str) -> None:
    objective, given = built(CONFIG, STUDENT, TEACHER), random_features(1, 2, STUDENT)
    taught = random_features(50, 2, TEACHER)

    def of(feature: Tensor) -> Tensor:
        return objective(signals_with({**given, name: feature}, taught)).total

    assert torch.autograd.gradcheck(of, given[name].clone().requires_grad_(), rtol=1e-5, atol=1e-7)


def test_no_gradient_reaches_the_teacher_and_some_each_feature_and_module() -> None:
    teacher, objective = random_features(50, 4, TEACHER, grad=True), built(CONFIG, STUDENT, TEACHER)
    student = random_features(1, 4, STUDENT, grad=True)
    objective(signals_with(student, teacher)).total.backward()  # type: ignore[no-untyped-call]
    assert all(part.grad is None for part in teacher.values())
    trained = [*student.values(), *objective.parameters()]
    assert all(part.grad is not None and part.grad.abs().sum() > 0 for part in trained)


def test_autocast_changes_neither_loss_nor_gradient() -> None:
    totals, gradients = [], []
    for enabled in (False, True):
        objective, signals = built(CONFIG, STUDENT, TEACHER).float(), in_fp32(signals_for())
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            total = objective(signals).total
        assert total.dtype is torch.float32
        totals.append(total.item())
        inputs = [*signals.features["weak"].values(), *objective.parameters()]
        gradients.append(torch.autograd.grad(total, inputs))
    assert totals[0] == totals[1]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


def test_one_sample_of_two_classes_has_a_finite_loss_and_gradient() -> None:
    objective, student = built(CONFIG, STUDENT, TEACHER), random_features(1, 1, STUDENT, grad=True)
    signals = signals_with(student, random_features(50, 1, TEACHER), labels=[1], n_classes=2)
    total = objective(signals).total
    assert math.isfinite(total.item())
    inputs = [*student.values(), *objective.parameters()]
    assert all(torch.isfinite(part).all() for part in torch.autograd.grad(total, inputs))
