"""Multi-level distillation: worked numbers of both masks, symmetries and edges."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.numerics.reference import (
    DIGITS,
    LABELS,
    STRONG_TEACHER,
    WEAK_STUDENT,
    WEAK_TEACHER,
    agrees_with_differences,
    logits,
    signals_of,
    two_views,
)
from trainables.config import MlldConfig, MlldMask, MlldTemperatures
from trainables.objectives import MlldObjective
from trainables.objectives.mlld import up_to_percentile
from trainables.objectives.terms.divergences import kd_divergence_B
from trainables.objectives.terms.relations import batch_gap_B, class_gap_C
from trainables.signals import Losses, Signals, TeacherSignal

# B = samples in the batch, C = classes


def mlld(signals: Signals | None = None, **fields: Any) -> Losses:
    return MlldObjective(MlldConfig(**fields))(signals or two_views())


def test_the_gaps_have_the_worked_values() -> None:
    student_BC, teacher_BC = logits(WEAK_STUDENT), logits(WEAK_TEACHER)
    assert class_gap_C(student_BC, teacher_BC, temperature=4.0).mean().item() == pytest.approx(
        0.004082, abs=DIGITS
    )
    assert batch_gap_B(student_BC, teacher_BC, temperature=4.0).mean().item() == pytest.approx(
        0.000597, abs=DIGITS
    )


def test_the_less_confident_half_of_samples_and_classes_is_kept() -> None:
    gauges = mlld().gauges
    assert (gauges["kept_samples"].item(), gauges["kept_classes"].item()) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("mask", "kd_weak", "kd_strong", "by_class", "batch", "total"),
    [
        (MlldMask.RELEASED, 0.833361, 0.919930, 0.017079, 0.006202, 1.799083),
        (MlldMask.PER_SAMPLE, 0.268561, 0.442986, 0.010303, 0.000554, 0.850331),
    ],
)
def test_each_mask_has_the_worked_values(
    mask: MlldMask, kd_weak: float, kd_strong: float, by_class: float, batch: float, total: float
) -> None:
    losses = mlld(mask=mask)
    assert losses.terms["kd_weak"].item() == pytest.approx(kd_weak, abs=DIGITS)
    assert losses.terms["kd_strong"].item() == pytest.approx(kd_strong, abs=DIGITS)
    assert losses.terms["class"].item() == pytest.approx(by_class, abs=DIGITS)
    assert losses.terms["batch"].item() == pytest.approx(batch, abs=DIGITS)
    assert losses.total.item() == pytest.approx(total, abs=DIGITS)


def test_kept_are_the_second_sample_and_the_second_and_fourth_class() -> None:
    student_BC, teacher_BC = logits(WEAK_STUDENT), logits(WEAK_TEACHER)
    of_samples_B, of_pairs_B, of_classes_C = (
        torch.stack([part(student_BC, teacher_BC, temperature=t) for t in (2.0, 3.0, 4.0, 5.0, 6.0)]).sum(0)
        for part in (kd_divergence_B, batch_gap_B, class_gap_C)
    )
    terms = mlld(mask=MlldMask.PER_SAMPLE).terms
    assert terms["kd_weak"].item() == pytest.approx(of_samples_B[1].item() / 2, rel=1e-12)
    assert terms["batch"].item() == pytest.approx(of_pairs_B[1].item() / 2, rel=1e-12)
    assert terms["class"].item() == pytest.approx(of_classes_C[[1, 3]].sum().item() / 4, rel=1e-12)


def test_one_temperature_of_the_weak_view_has_the_worked_divergence() -> None:
    alone = mlld(temperatures=MlldTemperatures.ONE, mask_percentile=100.0, mask=MlldMask.PER_SAMPLE)
    assert alone.terms["kd_weak"].item() == pytest.approx(0.339521, abs=DIGITS)


@pytest.mark.parametrize("mask", list(MlldMask))
def test_equal_networks_pay_the_labels_alone(mask: MlldMask) -> None:
    same = {"weak": logits(WEAK_TEACHER), "strong": logits(STRONG_TEACHER)}
    losses = mlld(signals_of(same, same, LABELS), mask=mask)
    for term in ("kd_weak", "kd_strong", "class", "batch"):
        assert losses.terms[term].item() == 0.0


def test_the_batch_term_knows_no_order_of_classes_and_the_class_term_none_of_samples() -> None:
    student_BC, teacher_BC = logits(WEAK_STUDENT), logits(WEAK_TEACHER)
    order = [2, 0, 3, 1]
    torch.testing.assert_close(
        batch_gap_B(student_BC[:, order], teacher_BC[:, order], temperature=4.0),
        batch_gap_B(student_BC, teacher_BC, temperature=4.0),
    )
    torch.testing.assert_close(
        class_gap_C(student_BC.flip(0), teacher_BC.flip(0), temperature=4.0),
        class_gap_C(student_BC, teacher_BC, temperature=4.0),
    )


@pytest.mark.parametrize("mask", list(MlldMask))
@pytest.mark.parametrize("bank", ["weak", "strong"])
def test_the_gradient_agrees_with_finite_differences(mask: MlldMask, bank: str) -> None:
    fixed = two_views()

    def total(student_BC: Tensor) -> Tensor:
        teachers = {name: signal.logits_BC for name, signal in fixed.teacher.items()}
        return mlld(signals_of({**fixed.student, bank: student_BC}, teachers, LABELS), mask=mask).total

    assert agrees_with_differences(total, WEAK_STUDENT)


def test_an_odd_batch_keeps_the_sample_in_the_middle() -> None:
    teacher_BC = torch.tensor([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [4.0, 0.0], [0.5, 0.0]])
    both = {"weak": teacher_BC, "strong": teacher_BC}
    gauges = mlld(signals_of(both, both, [0] * 5)).gauges
    assert gauges["kept_samples"].item() == pytest.approx(3 / 5)


@pytest.mark.parametrize(("percentile", "samples", "classes"), [(0.0, 0.5, 0.25), (100.0, 1.0, 1.0)])
def test_a_percentile_of_a_hundred_keeps_all_and_one_of_zero_the_least(
    percentile: float, samples: float, classes: float
) -> None:
    gauges = mlld(mask_percentile=percentile).gauges
    assert gauges["kept_samples"].item() == samples
    assert gauges["kept_classes"].item() == classes


def test_a_sample_at_the_percentile_is_kept() -> None:
    """84 % of the 75 steps between 76 samples are 63 exactly: the 64th is the percentile."""
    confidence_B = torch.linspace(0.2, 0.95, 76)
    even_BC = torch.zeros(76, 2)
    teacher = TeacherSignal(even_BC, confidence_B)
    both = {"weak": even_BC, "strong": even_BC}
    signals = replace(signals_of(both, both, [0] * 76), teacher=dict.fromkeys(both, teacher))
    gauges = mlld(signals, mask_percentile=84.0).gauges
    assert gauges["kept_samples"].item() == pytest.approx(64 / 76)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_samples_up_to_a_percentile_are_those_of_exact_arithmetic(dtype: torch.dtype) -> None:
    for rows in range(1, 130):
        values_N = torch.linspace(0.2, 0.95, rows, dtype=dtype).flip(0)
        for tenths in (0, 1, 7, 283, 290, 333, 500, 840, 999, 1000):
            kept = int(up_to_percentile(values_N, tenths / 10).sum())
            assert kept == tenths * (rows - 1) // 1000 + 1


def test_values_equal_to_the_percentile_are_all_kept() -> None:
    values_N = torch.tensor([3.0, 1.0, 2.0, 2.0, 2.0])
    assert up_to_percentile(values_N, 25.0).tolist() == [False, True, True, True, True]


@pytest.mark.parametrize("mask", list(MlldMask))
def test_fewer_temperatures_leave_out_the_outer_ones(mask: MlldMask) -> None:
    five, three, one = (
        mlld(mask=mask, temperatures=subset).terms["kd_strong"].item() for subset in MlldTemperatures
    )
    assert five > three > one > 0.0


def test_a_base_temperature_takes_the_place_of_the_four() -> None:
    assert mlld(temperature=1.0).total.item() != mlld().total.item()
    alone = mlld(temperature=4.0, temperatures=MlldTemperatures.ONE, mask=MlldMask.PER_SAMPLE)
    assert alone.terms["kd_weak"].item() == pytest.approx(0.108682 / 2, abs=DIGITS)


@pytest.mark.parametrize("mask", list(MlldMask))
def test_one_sample_gives_a_finite_loss(mask: MlldMask) -> None:
    one = {"weak": logits(WEAK_STUDENT[:1], grad=True), "strong": logits(WEAK_STUDENT[:1], grad=True)}
    teacher = {"weak": logits(WEAK_TEACHER[:1]), "strong": logits(STRONG_TEACHER[:1])}
    losses = mlld(signals_of(one, teacher, LABELS[:1]), mask=mask)
    assert math.isfinite(losses.total.item())
    assert losses.gauges["kept_samples"].item() == 1.0
