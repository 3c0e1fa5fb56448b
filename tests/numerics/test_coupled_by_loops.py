"""Objectives that look across a batch against their formulas in plain loops, down to B = 1 and C = 2."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Final

import numpy as np
import pytest

from tests.numerics.reference import Rows, logits, signals_of
from trainables.config import DistConfig, MlldConfig, MlldMask, ObjectiveBase
from trainables.config.objectives import CkdConfig, ClkdConfig, Covariance
from trainables.objectives import build_objective
from trainables.signals import Losses

# B = samples in the batch, C = classes
SHAPES: Final = [(1, 2), (1, 5), (2, 2), (3, 2), (4, 5), (7, 3)]
BANKS: Final = ("weak", "strong")


def drawn(shape: tuple[int, int]) -> list[Rows]:
    """Student and teacher on the weak, then on the strong view."""
    values = np.random.default_rng(shape[0] * 100 + shape[1]).normal(scale=2.0, size=(4, *shape))
    return [part.tolist() for part in values]


def losses_of(config: ObjectiveBase, shape: tuple[int, int]) -> Losses:
    parts = drawn(shape)
    students, teachers = (
        {bank: logits(parts[2 * place + who]) for place, bank in enumerate(BANKS)} for who in (0, 1)
    )
    return build_objective(config)(
        signals_of(students, teachers, [row % shape[1] for row in range(shape[0])])
    )


def softmax(row: list[float], temperature: float) -> list[float]:
    exponentials = [math.exp(value / temperature) for value in row]
    return [value / math.fsum(exponentials) for value in exponentials]


def columns(rows: Rows) -> Rows:
    return [list(column) for column in zip(*rows, strict=True)]


def dot(one: list[float], other: list[float]) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


def unit(vector: list[float]) -> list[float]:
    return [value / math.sqrt(dot(vector, vector)) for value in vector]


def centred(vector: list[float]) -> list[float]:
    return [value - math.fsum(vector) / len(vector) for value in vector]


def correlation(one: list[float], other: list[float]) -> float:
    one, other = centred(one), centred(other)
    return dot(one, other) / (math.sqrt(dot(one, one)) * math.sqrt(dot(other, other)) + 1e-8)


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def gap_of_products(student: Rows, teacher: Rows) -> list[float]:
    """Of each row, the squared difference of its products with all rows."""
    pairs = list(zip(student, teacher, strict=True))
    return [math.fsum((dot(t, u) - dot(s, v)) ** 2 for v, u in pairs) for s, t in pairs]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_dist_is_its_correlations(shape: tuple[int, int], temperature: float) -> None:
    student, teacher = ([softmax(row, temperature) for row in rows] for rows in drawn(shape)[:2])
    terms = losses_of(DistConfig(temperature=temperature), shape).terms
    for term, (one, other) in {
        "inter": (student, teacher),
        "intra": (columns(student), columns(teacher)),
    }.items():
        distance = 1 - mean([correlation(s, t) for s, t in zip(one, other, strict=True)])
        assert terms[term].item() == pytest.approx(temperature**2 * distance, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("covariance", list(Covariance))
@pytest.mark.parametrize("shape", SHAPES)
def test_clkd_is_its_differences_and_covariance(shape: tuple[int, int], covariance: Covariance) -> None:
    student, teacher = drawn(shape)[:2]
    terms = losses_of(ClkdConfig(covariance=covariance), shape).terms
    for term, turned in {"sample": False, "class": True}.items():
        one, other = (columns(student), columns(teacher)) if turned else (student, teacher)
        squares = [
            (a - b) ** 2
            for s, t in zip(one, other, strict=True)
            for a, b in zip(unit(s), unit(t), strict=True)
        ]
        assert terms[term].item() == pytest.approx(mean(squares), rel=1e-9)
    by_class = covariance is Covariance.CLASS
    one, other = (columns(student), columns(teacher)) if by_class else (student, teacher)
    one, other = [centred(row) for row in one], [centred(row) for row in other]
    freedom = max(len(one[0]) - 1, 1)
    squares = [
        ((dot(a, b) - dot(c, d)) / freedom) ** 2
        for a, c in zip(one, other, strict=True)
        for b, d in zip(one, other, strict=True)
    ]
    assert terms["covariance"].item() == pytest.approx(
        math.fsum(squares) / shape[1] ** 2, rel=1e-9, abs=1e-30
    )


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_ckd_is_its_contrast_with_the_teachers_as_anchors(shape: tuple[int, int], temperature: float) -> None:
    student, teacher = ([unit(row) for row in rows] for rows in drawn(shape)[:2])
    answers = [softmax([dot(t, s) for s in student], temperature)[i] for i, t in enumerate(teacher)]
    found = losses_of(CkdConfig(temperature=temperature), shape).terms["contrast"].item()
    assert found == pytest.approx(-mean([math.log(answer) for answer in answers]), rel=1e-9, abs=1e-12)


def divergence(temperature: float) -> Callable[[list[float], list[float]], float]:
    def of_row(student: list[float], teacher: list[float]) -> float:
        pairs = zip(softmax(student, temperature), softmax(teacher, temperature), strict=True)
        return temperature**2 * math.fsum(t * math.log(t / s) for s, t in pairs)

    return of_row


@pytest.mark.parametrize("mask", list(MlldMask))
@pytest.mark.parametrize("shape", SHAPES)
def test_mlld_is_its_sums_over_temperatures_of_what_its_masks_keep(
    shape: tuple[int, int], mask: MlldMask
) -> None:
    weak, weak_teacher, strong, strong_teacher = drawn(shape)
    answers = [softmax(row, 1.0) for row in weak_teacher]
    confidence, votes = [max(row) for row in answers], [math.fsum(column) for column in columns(answers)]
    kept_samples = [float(value <= statistics.median(confidence)) for value in confidence]
    kept_classes = [float(value <= statistics.median(votes)) for value in votes]
    expected = dict.fromkeys(("kd_weak", "kd_strong", "class", "batch"), 0.0)
    released = mask is MlldMask.RELEASED
    for temperature in (2.0, 3.0, 4.0, 5.0, 6.0):
        of_weak = list(map(divergence(temperature), weak, weak_teacher))
        of_strong = list(map(divergence(temperature), strong, strong_teacher))
        outer = temperature in (2.0, 6.0)
        expected["kd_strong"] += mean(of_weak if released and outer else of_strong)
        soft = [[softmax(row, temperature) for row in rows] for rows in (weak, weak_teacher)]
        of_pairs, of_classes = gap_of_products(*soft), gap_of_products(*map(columns, soft))
        for term, kept, values in (
            ("kd_weak", kept_samples, of_weak),
            ("class", kept_classes, of_classes),
            ("batch", kept_samples, of_pairs),
        ):
            expected[term] += mean(kept) * mean(values) if released else dot(kept, values) / len(kept)
    terms = losses_of(MlldConfig(mask=mask), shape).terms
    assert {term: terms[term].item() for term in expected} == pytest.approx(expected, rel=1e-9, abs=1e-12)
