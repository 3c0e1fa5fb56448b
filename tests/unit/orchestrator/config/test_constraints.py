from __future__ import annotations

import re

import pytest

from orchestrator.config.constraints import Constraint, parse_constraints, violated

FIGURES = {"params": 1e6, "size_bytes": 4e6, "latency_ms": 2.0, "selection_accuracy": 0.9}


def test_clauses_are_joined_by_and() -> None:
    assert parse_constraints("latency_ms <= 2 and params<1e6 and selection_accuracy  >= .9") == (
        Constraint("latency_ms", "<=", 2.0),
        Constraint("params", "<", 1e6),
        Constraint("selection_accuracy", ">=", 0.9),
    )


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("params <= 1e6", True),
        ("params < 1e6", False),
        ("params >= 1e6", True),
        ("params > 1e6", False),
        ("latency_ms <= 1.999", False),
        ("size_bytes > -1", True),
    ],
)
def test_a_bound_is_kept_or_broken_at_the_bound_itself(text: str, holds: bool) -> None:
    (constraint,) = parse_constraints(text)
    assert constraint.holds(FIGURES) is holds


def test_what_is_violated_is_told_in_order() -> None:
    constraints = parse_constraints("params < 10 and latency_ms <= 2 and size_bytes < 1")
    assert [c.field for c in violated(constraints, FIGURES)] == ["params", "size_bytes"]
    assert violated((), FIGURES) == []


@pytest.mark.parametrize("text", ["params <= 1234567", "latency_ms <= 0.1", "params < 1000000"])
def test_a_constraint_is_shown_as_it_was_written(text: str) -> None:
    (constraint,) = parse_constraints(text)
    assert str(constraint) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no constraint; write FIGURE <= NUMBER joined by `and`; figures: params, size_bytes"),
        ("params == 5", "'params == 5' is no constraint"),
        ("params <= 5 or latency_ms < 1", "'params <= 5 or latency_ms < 1' is no constraint"),
        ("params <= 5 and", "'' is no constraint"),
        ("params <= nan", "'params <= nan' is no constraint"),
        ("__import__('os') <= 1", "is no constraint"),
        ("latency <= 2", "unknown figure 'latency' in a constraint; known: params, size_bytes, latency_ms, "),
        ("latency <= 2", "did you mean 'latency_ms'?"),
        ("parms <= 2", "did you mean 'params'?"),
        ("params <= 1e", "'1e' in 'params <= 1e' is no number"),
        (
            "selection_accuracy >= 90",
            "'selection_accuracy >= 90': an accuracy is a fraction; allowed: 0 to 1; did you mean "
            "selection_accuracy >= 0.9?",
        ),
        ("selection_accuracy > -1", "'selection_accuracy > -1': an accuracy is a fraction; allowed: 0 to 1"),
    ],
)
def test_what_is_no_constraint_is_named_with_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_constraints(text)


def test_a_name_like_no_figure_gets_no_hint() -> None:
    with pytest.raises(ValueError, match=r"unknown figure 'zzz' in a constraint; known: [\w, ]+$"):
        parse_constraints("zzz <= 2")
