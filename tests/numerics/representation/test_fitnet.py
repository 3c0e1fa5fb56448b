"""FitNet: the regressor by shape, the worked number, the paper's two steps, precision, single samples."""

from __future__ import annotations

import math
from typing import Any, Final

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from tests.numerics.reference import DIGITS
from tests.numerics.representation.map_signals import (
    built,
    drawn,
    in_fp32,
    random_features,
    setting_of,
    signals_with,
)
from trainables.config.objectives import FitnetConfig
from trainables.errors import TrialFailed
from trainables.objectives import FitnetObjective, build_objective
from trainables.objectives.representation.fitnet import map_regressor
from trainables.objectives.representation.terms.maps import mean_square
from trainables.signals import Signals

STUDENT: Final = {"stage2": (3, 4, 4)}
TEACHER: Final = {"stage2": (5, 4, 4)}
Size = tuple[int, int]


def signals_for(rows: int = 4, **more: Any) -> Signals:
    return signals_with(random_features(1, rows, STUDENT), random_features(7, rows, TEACHER), **more)


def test_the_hint_has_the_worked_value() -> None:
    student = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).double()[None, None]
    teacher = torch.tensor([[1.0, 0.0], [0.0, 4.0]]).double()[None, None]
    assert mean_square(student, teacher).item() == pytest.approx(3.250000, abs=DIGITS)


@pytest.mark.parametrize(
    ("student", "teacher", "kernel", "stride"),
    [
        ((8, 8), (4, 4), (3, 3), (2, 2)),
        ((8, 8), (8, 8), (1, 1), (1, 1)),
        ((8, 8), (5, 6), (4, 3), (1, 1)),
        ((8, 4), (4, 4), (5, 1), (1, 1)),  # twice the height alone
        ((16, 16), (4, 4), (13, 13), (1, 1)),
    ],
)
def test_a_map_at_least_as_large_is_convolved_to_the_teachers(
    student: Size, teacher: Size, kernel: Size, stride: Size
) -> None:
    regressor = map_regressor((3, *student), (5, *teacher), relu=True)
    layers = [layer for layer in regressor.modules() if isinstance(layer, nn.Conv2d)]
    assert [(layer.kernel_size, layer.stride) for layer in layers] == [(kernel, stride)]
    assert regressor(torch.rand(2, 3, *student)).shape == (2, 5, *teacher)


def test_a_map_of_half_the_size_is_convolved_transposed() -> None:
    regressor = map_regressor((3, 4, 6), (5, 8, 12), relu=True)
    (layer,) = (layer for layer in regressor.modules() if isinstance(layer, nn.ConvTranspose2d))
    assert (layer.kernel_size, layer.stride) == ((4, 4), (2, 2))
    assert regressor(torch.rand(2, 3, 4, 6)).shape == (2, 5, 8, 12)


@pytest.mark.parametrize(("student", "teacher"), [((4, 4), (7, 7)), ((2, 2), (8, 8)), ((8, 2), (4, 4))])
def test_any_other_size_is_resized_and_convolved_by_positions(student: Size, teacher: Size) -> None:
    regressor = map_regressor((3, *student), (5, *teacher), relu=True)
    (layer,) = (layer for layer in regressor.modules() if isinstance(layer, nn.Conv2d))
    assert layer.kernel_size == (1, 1)
    assert regressor(torch.rand(2, 3, *student)).shape == (2, 5, *teacher)


def test_without_its_relu_the_regressor_reaches_below_zero() -> None:
    given = drawn(1, 8, 3, 4, 4)
    made = {relu: map_regressor((3, 4, 4), (5, 4, 4), relu=relu).double()(given) for relu in (True, False)}
    assert made[True].min().item() == 0.0
    assert made[False].min().item() < -0.5


def test_maps_before_the_activation_are_named_and_met_without_a_relu() -> None:
    config = FitnetConfig.from_plain({"teacher_maps": "pre", "hint": "stage3"})
    assert (config.student_features, config.teacher_features) == (("stage3",), ("stage3.pre",))
    assert not config.relu
    assert FitnetConfig.from_plain({"teacher_maps": "pre", "relu": True}).relu
    assert FitnetConfig().relu
    objective = built(config, {"stage3": (3, 4, 4)}, {"stage3.pre": (5, 4, 4)})
    assert not [layer for layer in objective.modules() if isinstance(layer, nn.ReLU)]


def test_the_total_is_the_weighted_sum_of_the_terms() -> None:
    config = FitnetConfig(ce_weight=0.5, hint_weight=20.0, kd_weight=0.9)
    losses = built(config, STUDENT, TEACHER)(signals_for())
    assert set(losses.terms) == {"ce", "hint", "kd"}
    weighted = 0.5 * losses.terms["ce"] + 20 * losses.terms["hint"] + 0.9 * losses.terms["kd"]
    torch.testing.assert_close(losses.total.detach(), weighted, rtol=1e-12, atol=0)


def test_the_hint_is_the_square_to_what_the_regressor_makes_and_0_where_they_meet() -> None:
    objective, given = built(FitnetConfig(), STUDENT, TEACHER), random_features(1, 4, STUDENT)
    assert isinstance(objective, FitnetObjective)
    made = objective.regressor(given["stage2"]).detach()
    assert objective(signals_with(given, {"stage2": made})).terms["hint"].item() == 0.0
    off = objective(signals_with(given, {"stage2": made + 0.5})).terms["hint"]
    assert off.item() == pytest.approx(0.25, rel=1e-12)


def test_neither_scale_nor_shift_of_an_embedding_is_forgiven() -> None:
    shapes = {"embedding": (3,)}
    objective = built(FitnetConfig(hint="embedding"), shapes, shapes)
    assert isinstance(objective, FitnetObjective)
    given = drawn(1, 4, 3)
    taught = {"embedding": objective.regressor(given).detach()}
    hints = [
        objective(signals_with({"embedding": changed}, taught)).terms["hint"].item()
        for changed in (given, 2 * given, given + 1, given.flip(-1))
    ]
    assert hints[0] == 0.0
    assert min(hints[1:]) > 1e-3


def test_the_hint_of_embeddings_goes_through_a_linear_layer() -> None:
    objective = built(FitnetConfig(hint="embedding"), {"embedding": (3,)}, {"embedding": (7,)})
    assert isinstance(objective, FitnetObjective)
    assert isinstance(objective.regressor, nn.Linear)
    assert objective.regressor.weight.shape == (7, 3)


@pytest.mark.parametrize(
    ("epoch", "heard", "silent"),
    [
        (1, {"hint": 20.0}, {"ce", "kd"}),
        (2, {"hint": 20.0}, {"ce", "kd"}),
        (3, {"ce": 0.5, "kd": 0.9}, {"hint"}),
    ],
)
def test_the_papers_two_steps_are_the_hint_alone_and_then_none(
    epoch: int, heard: dict[str, float], silent: set[str]
) -> None:
    config = FitnetConfig(ce_weight=0.5, hint_weight=20.0, kd_weight=0.9, hint_epochs=2)
    losses = built(config, STUDENT, TEACHER)(signals_for(epoch=epoch))
    assert set(losses.terms) == {*heard, *silent}
    expected = sum(weight * losses.terms[term].item() for term, weight in heard.items())
    assert losses.total.item() == pytest.approx(expected, rel=1e-12)


def test_a_course_of_the_hint_alone_is_refused() -> None:
    with pytest.raises(TrialFailed, match=r"hint_epochs is 10 and the course has 10 epochs"):
        built(FitnetConfig(hint_epochs=10), STUDENT, TEACHER)
    built(FitnetConfig(hint_epochs=9), STUDENT, TEACHER)


def test_the_defaults_are_those_of_the_benchmark_and_bounded() -> None:
    config = FitnetConfig()
    assert (config.hint, config.hint_weight, config.ce_weight, config.kd_weight) == ("stage2", 100, 1, 0)
    for wrong in ({"hint": "stage0"}, {"hint": "last"}, {"hint_weight": -1.0}, {"hint_epochs": -1}):
        with pytest.raises(ValidationError):
            FitnetConfig.from_plain(wrong)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            FitnetConfig(),
            r"fitnet compares feature maps.*'stage2' of the student; found none;.*hint: embedding",
        ),
        (
            FitnetConfig(hint="embedding"),
            r"'embedding' of the student; found none; take a student that ends in",
        ),
    ],
)
def test_a_student_without_the_feature_is_refused_with_what_fits_it(
    config: FitnetConfig, message: str
) -> None:
    with pytest.raises(TrialFailed, match=message):
        build_objective(config, setting_of({}, {"stage2": (5, 4, 4), "embedding": (5,)}))


def test_a_teacher_without_the_feature_is_named() -> None:
    with pytest.raises(TrialFailed, match=r"'stage2.pre' of the teacher; found none"):
        build_objective(FitnetConfig(teacher_maps="pre"), setting_of(STUDENT, TEACHER))


@pytest.mark.parametrize("size", [(8, 8), (4, 4), (5, 5), (2, 2), (3, 3)])
def test_the_gradient_is_that_of_differences(size: Size) -> None:
    config, shapes = FitnetConfig(hint_weight=1.0, relu=False), {"stage2": (2, *size)}
    objective = built(config, shapes, TEACHER)
    teacher = random_features(7, 2, TEACHER)

    def of(given: Tensor) -> Tensor:
        return objective(signals_with({"stage2": given}, teacher)).total

    assert torch.autograd.gradcheck(of, drawn(1, 2, 2, *size).requires_grad_(), rtol=1e-5, atol=1e-8)


def test_no_gradient_reaches_the_teachers_map_and_some_the_regressor() -> None:
    teacher, objective = random_features(7, 4, TEACHER, grad=True), built(FitnetConfig(), STUDENT, TEACHER)
    student = random_features(1, 4, STUDENT, grad=True)
    objective(signals_with(student, teacher)).total.backward()  # type: ignore[no-untyped-call]
    assert teacher["stage2"].grad is None
    trained = [student["stage2"], *objective.parameters()]
    assert all(part.grad is not None and part.grad.abs().sum() > 0 for part in trained)


def test_autocast_changes_neither_loss_nor_gradient() -> None:
    totals, gradients = [], []
    for enabled in (False, True):
        objective, signals = built(FitnetConfig(), STUDENT, TEACHER).float(), in_fp32(signals_for())
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            total = objective(signals).total
        assert total.dtype is torch.float32
        totals.append(total.item())
        inputs = [signals.features["weak"]["stage2"], *objective.parameters()]
        gradients.append(torch.autograd.grad(total, inputs))
    assert totals[0] == totals[1]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 4, 4)])
def test_one_sample_of_two_classes_has_a_finite_loss_and_gradient(shape: tuple[int, ...]) -> None:
    shapes = {"stage2": shape}
    objective, student = built(FitnetConfig(), shapes, shapes), random_features(1, 1, shapes, grad=True)
    signals = signals_with(student, random_features(7, 1, shapes), labels=[1], n_classes=2)
    total = objective(signals).total
    assert math.isfinite(total.item())
    inputs = [student["stage2"], *objective.parameters()]
    assert all(torch.isfinite(part).all() for part in torch.autograd.grad(total, inputs))


def test_a_single_value_a_channel_leaves_the_running_statistics() -> None:
    shapes = {"stage2": (3, 1, 1)}
    objective = built(FitnetConfig(), shapes, shapes)
    before = {name: value.clone() for name, value in objective.named_buffers()}
    objective(signals_with(random_features(1, 1, shapes), random_features(7, 1, shapes)))
    assert before
    assert all(torch.equal(value, before[name]) for name, value in objective.named_buffers())
    objective(signals_with(random_features(1, 2, shapes), random_features(7, 2, shapes)))
    assert not all(torch.equal(value, before[name]) for name, value in objective.named_buffers())
