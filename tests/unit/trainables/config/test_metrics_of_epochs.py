"""One rule says which epoch is the best, and one module spells the metric it goes by."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest

import trainables
from trainables.config.metrics import ACCURACY, improves

ROOT = Path(trainables.__file__).parents[1]
PACKAGES = ("orchestrator", "trainables", "search_spaces", "cluster")


@pytest.mark.parametrize(
    ("accuracy", "best", "expected"),
    [
        (0.6, 0.5, True),
        (0.5, 0.5, False),
        (0.4, 0.5, False),
        (0.0, None, True),
        (None, None, False),
        (None, 0.5, False),
        (math.nan, None, False),
    ],
)
def test_an_epoch_is_the_best_when_its_accuracy_is_higher_than_any_before(
    accuracy: float | None, best: float | None, expected: bool
) -> None:
    assert improves(accuracy, best) is expected


def test_the_metric_that_selects_is_spelled_in_one_module() -> None:
    spelled = [
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value == ACCURACY
    ]
    assert spelled == ["trainables/config/metrics.py"]
