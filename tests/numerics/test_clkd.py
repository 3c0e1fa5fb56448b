"""Logits by sample, by class and by covariance: worked numbers, identities, invariances."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.numerics.reference import (
    DIGITS,
    THREE_LABELS,
    THREE_STUDENT,
    THREE_TEACHER,
    agrees_with_differences,
    logits,
    signals_of,
    three_rows,
)
from trainables.config.objectives import ClkdConfig, Covariance
from trainables.objectives import ClkdObjective
from trainables.signals import Signals

# B = samples in the batch, C = classes


def terms(signals: Signals | None = None, **fields: Any) -> dict[str, float]:
    losses = ClkdObjective(ClkdConfig(**fields))(signals or three_rows())
    return {name: value.item() for name, value in {**losses.terms, "total": losses.total}.items()}


@pytest.mark.parametrize(
    ("covariance", "value", "total"),
    [(Covariance.CLASS, 0.507985, 0.494181), (Covariance.SAMPLE, 0.453283, 0.472300)],
)
def test_the_terms_have_the_worked_values(covariance: Covariance, value: float, total: float) -> None:
    found = terms(covariance=covariance)
    assert found["sample"] == pytest.approx(0.060578, abs=DIGITS)
    assert found["class"] == pytest.approx(0.177552, abs=DIGITS)
    assert found["covariance"] == pytest.approx(value, abs=DIGITS)
    assert found["total"] == pytest.approx(total, abs=DIGITS)


def test_the_first_two_are_cosines() -> None:
    student_BC, teacher_BC = logits(THREE_STUDENT), logits(THREE_TEACHER)
    rows_B = F.cosine_similarity(student_BC, teacher_BC, dim=1)
    columns_C = F.cosine_similarity(student_BC, teacher_BC, dim=0)
    assert terms()["sample"] == pytest.approx((2 * (1 - rows_B) / 4).mean().item(), rel=1e-9)
    assert terms()["class"] == pytest.approx((2 * (1 - columns_C) / 3).mean().item(), rel=1e-9)


@pytest.mark.parametrize("covariance", list(Covariance))
def test_equal_networks_pay_the_labels_alone(covariance: Covariance) -> None:
    teacher_BC = logits(THREE_TEACHER)
    found = terms(signals_of(teacher_BC, teacher_BC, THREE_LABELS), covariance=covariance)
    assert (found["sample"], found["class"], found["covariance"]) == (0.0, 0.0, 0.0)


def test_what_each_term_does_not_see() -> None:
    student_BC, teacher_BC = logits(THREE_STUDENT), logits(THREE_TEACHER)
    scaled = signals_of(student_BC * torch.tensor([[0.3], [5.0], [40.0]]).double(), teacher_BC, THREE_LABELS)
    assert terms(scaled)["sample"] == pytest.approx(terms()["sample"], rel=1e-9)
    assert terms(signals_of(student_BC + 1, teacher_BC, THREE_LABELS))["sample"] > 1.1 * terms()["sample"]
    one_vector = student_BC + torch.tensor([1.0, -2.0, 0.5, 3.0]).double()
    moved = terms(signals_of(one_vector, teacher_BC, THREE_LABELS))["covariance"]
    assert moved == pytest.approx(terms()["covariance"], rel=1e-9)
    per_row = student_BC + torch.tensor([[1.0], [-2.0], [0.5]]).double()
    moved = terms(signals_of(per_row, teacher_BC, THREE_LABELS), covariance="sample")["covariance"]
    assert moved == pytest.approx(terms(covariance="sample")["covariance"], rel=1e-9)


@pytest.mark.parametrize("covariance", list(Covariance))
def test_the_gradient_agrees_with_finite_differences(covariance: Covariance) -> None:
    objective, teacher_BC = ClkdObjective(ClkdConfig(covariance=covariance)), logits(THREE_TEACHER)
    assert agrees_with_differences(
        lambda rows_BC: objective(signals_of(rows_BC, teacher_BC, THREE_LABELS)).total, THREE_STUDENT
    )


@pytest.mark.parametrize("covariance", list(Covariance))
def test_a_single_sample_has_no_covariance_over_the_batch(covariance: Covariance) -> None:
    found = terms(
        signals_of(logits(THREE_STUDENT[:1]), logits(THREE_TEACHER[:1]), [0]), covariance=covariance
    )
    assert (found["covariance"] == 0.0) == (covariance is Covariance.CLASS)
    assert found["total"] < 10.0
