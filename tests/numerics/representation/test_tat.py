"""The objective TaT: its modules by shape, what it refuses, its terms, precision, single samples."""

from __future__ import annotations

import math
from typing import Any, Final

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from tests.numerics.representation.map_signals import (
    built,
    drawn,
    in_fp32,
    random_features,
    setting_of,
    signals_with,
)
from trainables.config.objectives import TatConfig
from trainables.errors import TrialFailed
from trainables.objectives import TatObjective, build_objective
from trainables.objectives.representation.terms.target_aware import whole_map_loss
from trainables.signals import Signals

STUDENT: Final = {"last": (3, 4, 4)}
TEACHER: Final = {"last": (5, 4, 4)}


def signals_for(student: Tensor | None = None, rows: int = 4, **more: Any) -> Signals:
    given = {"last": drawn(1, rows, *STUDENT["last"]) if student is None else student}
    return signals_with(given, random_features(7, rows, TEACHER), **more)


def test_gamma_and_phi_of_resnet18_have_the_papers_parameters() -> None:
    shapes = {"last": (512, 7, 7)}
    objective = build_objective(TatConfig(), setting_of(shapes, shapes))
    assert sum(parameter.numel() for parameter in objective.parameters()) == 4_720_640


def test_theta_is_the_identity_or_one_more_convolution_that_learns() -> None:
    plain, more = built(TatConfig(), STUDENT, TEACHER), built(TatConfig(theta="conv"), STUDENT, TEACHER)
    added = set(dict(more.named_parameters())) - set(dict(plain.named_parameters()))
    assert added == {"theta.0.weight", "theta.1.weight", "theta.1.bias"}
    more(signals_for()).total.backward()  # type: ignore[no-untyped-call]
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for n, p in more.named_parameters() if n in added
    )


@pytest.mark.parametrize("orientation", ["teacher_row", "student_row"])
def test_the_total_is_the_papers_sum_of_its_terms(orientation: str) -> None:
    config = TatConfig(orientation=orientation, ce_weight=0.5, kd_weight=0.3, tat_weight=0.1)
    objective, signals = built(config, STUDENT, TEACHER), signals_for()
    losses = objective(signals)
    assert set(losses.terms) == {"ce", "tat", "kd"}
    weighted = 0.5 * losses.terms["ce"] + 0.3 * losses.terms["kd"] + 0.1 * losses.terms["tat"]
    torch.testing.assert_close(losses.total.detach(), weighted, rtol=1e-12, atol=0)
    assert isinstance(objective, TatObjective)
    given, taught = signals.features["weak"]["last"], signals.teacher["weak"].features["last"]
    expected = whole_map_loss(
        objective.gamma(given), objective.phi(given), taught, taught, config.orientation
    )
    torch.testing.assert_close(losses.terms["tat"], expected.detach(), rtol=1e-12, atol=0)


def test_the_two_orientations_differ() -> None:
    found = [
        built(TatConfig(orientation=which), STUDENT, TEACHER)(signals_for()).terms["tat"].item()
        for which in ("teacher_row", "student_row")
    ]
    assert abs(found[0] - found[1]) > 1e-3


def test_the_defaults_are_the_papers_first_release() -> None:
    config = TatConfig()
    assert (config.ce_weight, config.kd_weight, config.tat_weight) == (0.1, 0.0, 0.2)
    assert (config.temperature, config.orientation, config.theta) == (1.0, "student_row", "identity")
    with pytest.raises(ValidationError):
        TatConfig(tat_weight=-0.1)


def test_maps_of_unequal_size_are_refused_by_name_or_pooled_when_asked() -> None:
    larger = {"last": (3, 8, 6)}
    with pytest.raises(TrialFailed, match=r"student's is 8x6, the teacher's 4x4; `unequal_maps: pool`"):
        built(TatConfig(), larger, TEACHER)
    pooling = TatConfig(unequal_maps="pool")
    student = drawn(1, 4, 3, 8, 6)
    found = built(pooling, larger, TEACHER)(signals_for(student))
    pooled = torch.nn.functional.adaptive_avg_pool2d(student, (4, 4))
    expected = built(TatConfig(), STUDENT, TEACHER)(signals_for(pooled))
    torch.testing.assert_close(found.total, expected.total, rtol=1e-12, atol=0)
    smaller = {"last": (3, 2, 2)}
    losses = built(pooling, smaller, TEACHER)(signals_for(drawn(2, 4, *smaller["last"])))
    assert math.isfinite(losses.terms["tat"].item())


@pytest.mark.parametrize(
    ("shapes", "found"),
    [({}, "found none"), ({"last": (16, 64)}, "found 16x64 numbers a sample, which is no")],
)
def test_a_student_without_maps_is_refused_with_what_fits_it(
    shapes: dict[str, tuple[int, ...]], found: str
) -> None:
    with pytest.raises(TrialFailed, match=rf"tat compares feature maps.*'last' of the student; {found}.*rkd"):
        build_objective(TatConfig(), setting_of(shapes, TEACHER))


def test_the_gradient_is_that_of_differences() -> None:
    objective, teacher = built(TatConfig(kd_weight=1.0), STUDENT, TEACHER), random_features(7, 2, TEACHER)

    def of(student: Tensor) -> Tensor:
        return objective(signals_with({"last": student}, teacher)).total

    student = drawn(1, 2, *STUDENT["last"]).requires_grad_()
    assert torch.autograd.gradcheck(of, student, rtol=1e-5, atol=1e-8)


def test_no_gradient_reaches_the_teachers_map() -> None:
    teacher = {"last": drawn(9, 4, *TEACHER["last"]).requires_grad_()}
    student = {"last": drawn(1, 4, *STUDENT["last"]).requires_grad_()}
    built(TatConfig(theta="conv"), STUDENT, TEACHER)(signals_with(student, teacher)).total.backward()  # type: ignore[no-untyped-call]
    assert teacher["last"].grad is None
    assert student["last"].grad is not None
    assert student["last"].grad.abs().sum() > 0


def test_autocast_changes_neither_loss_nor_gradient() -> None:
    totals, gradients = [], []
    for enabled in (False, True):
        objective, signals = built(TatConfig(theta="conv"), STUDENT, TEACHER).float(), in_fp32(signals_for())
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            total = objective(signals).total
        assert total.dtype is torch.float32
        totals.append(total.item())
        gradients.append(
            torch.autograd.grad(total, [signals.features["weak"]["last"], *objective.parameters()])
        )
    assert totals[0] == totals[1]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


@pytest.mark.parametrize("side", [1, 4])
def test_one_sample_of_two_classes_has_a_finite_loss_and_gradient(side: int) -> None:
    shapes = {"last": (3, side, side)}
    objective = built(TatConfig(theta="conv"), shapes, shapes)
    student = drawn(1, 1, 3, side, side).requires_grad_()
    signals = signals_with({"last": student}, random_features(7, 1, shapes), labels=[1], n_classes=2)
    total = objective(signals).total
    assert math.isfinite(total.item())
    inputs = [student, *objective.parameters()]
    assert all(torch.isfinite(part).all() for part in torch.autograd.grad(total, inputs, allow_unused=False))
