"""Whole trainings of many seeds, packed and alone: rounding changes single ones, not how good they are."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats  # type: ignore[import-untyped]

from tests.unit.trainables.training.packs.packed_courses import (
    Told,
    alone,
    course,
    packed_student,
    taught_workbench,
    together,
)
from tests.unit.trainables.training.small_courses import SHORT
from trainables.config.metrics import ACCURACY, NLL
from trainables.training.packs.networks import Form

SEEDS = 20
SURE = 0.999
"""One sided with so many seeds, a right pack fails by chance once in a thousand kinds of processors."""
TRAINING = SHORT.with_overrides(epochs=12, lr=0.1)


@pytest.mark.parametrize("form", Form)
def test_packed_and_lone_students_are_as_good(tmp_path: Path, form: Form, one_thread: None) -> None:
    bench = taught_workbench(tmp_path)
    courses = [course(seed, training=TRAINING) for seed in range(SEEDS)]
    lone = [alone(replace(own, model=packed_student(own.seed)), bench) for own in courses]
    packed, _ = together(courses, bench, form)
    for figure in (ACCURACY, NLL):
        low, high = interval(
            [_last(one, figure) - _last(two, figure) for one, two in zip(packed, lone, strict=True)]
        )
        assert low <= 0 <= high, figure


def interval(differences: list[float]) -> tuple[float, float]:
    """Student's t of the mean; where nothing differs it is 0 alone."""
    mean, deviation = statistics.fmean(differences), statistics.stdev(differences)
    half = stats.t.ppf((1 + SURE) / 2, len(differences) - 1) * deviation / math.sqrt(len(differences))
    return mean - half - 1e-6, mean + half + 1e-6


def _last(told: Told, figure: str) -> float:
    return told.metrics[-1][figure]
