"""Constraints on a champion are parsed, and what cannot be meant is refused with what is allowed."""

from __future__ import annotations

import re

import pytest

from orchestrator.config.constraints import DEEPEST, LONGEST, Constraint, parse_constraints, violated
from orchestrator.config.picking.figures import FIGURES, cost_of, figure_named, figures_named

FIGURES_OF_ONE = {"params": 1e6, "size_bytes": 4e6, "latency_ms": 2.0, "selection_accuracy": 0.9}


def holds(text: str) -> bool:
    return not violated(parse_constraints(text), FIGURES_OF_ONE)


def test_clauses_are_joined_by_and() -> None:
    assert parse_constraints("latency_ms <= 2 and params<1e6 and selection_accuracy  >= .9") == (
        Constraint("latency_ms", "<=", 2.0),
        Constraint("params", "<", 1e6),
        Constraint("selection_accuracy", ">=", 0.9),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("params <= 1e6", True),
        ("params < 1e6", False),
        ("params >= 1e6", True),
        ("params > 1e6", False),
        ("latency_ms <= 1.999", False),
        ("size_bytes > -1", True),
    ],
)
def test_a_bound_is_kept_or_broken_at_the_bound_itself(text: str, expected: bool) -> None:
    assert holds(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("params < 1 or latency_ms <= 2", True),
        ("params < 1 or latency_ms < 2", False),
        ("params < 1 and params < 2 or latency_ms <= 2", True),  # `and` binds more
        ("params < 1 and (params < 2 or latency_ms <= 2)", False),
        ("(params <= 1e6 or params < 1) and ((latency_ms <= 2))", True),
    ],
)
def test_one_of_several_is_enough_with_or(text: str, expected: bool) -> None:
    assert holds(text) is expected


def test_accuracies_may_be_in_percent_and_names_short() -> None:
    assert parse_constraints("accuracy >= 90 % and nll < 0.5 and gain>0.01") == (
        Constraint("selection_accuracy", ">=", 0.9),
        Constraint("selection_nll", "<", 0.5),
        Constraint("selection_gain", ">", 0.01),
    )


@pytest.mark.parametrize("text", ["latency_ms <= 2 ms", "latency_ms <= 2ms", "(latency_ms <= 2 ms)"])
def test_a_number_may_have_its_figures_own_unit(text: str) -> None:
    assert parse_constraints(text) == (Constraint("latency_ms", "<=", 2.0),)


def test_what_is_violated_is_told_in_order() -> None:
    constraints = parse_constraints("params < 10 and latency_ms <= 2 and size_bytes < 1")
    assert [c.fields for c in violated(constraints, FIGURES_OF_ONE)] == [{"params"}, {"size_bytes"}]
    assert violated((), FIGURES_OF_ONE) == []


def test_a_figure_that_is_not_known_keeps_no_bound_but_still_may() -> None:
    (constraint,) = parse_constraints("latency_p95_ms <= 2")
    assert not constraint.holds(FIGURES_OF_ONE)
    assert constraint.may_hold(FIGURES_OF_ONE)
    assert constraint.miss(FIGURES_OF_ONE) == "latency_p95_ms is not known, so latency_p95_ms <= 2 is missed"


def test_of_alternatives_the_nearest_counts_and_all_are_told() -> None:
    (either,) = parse_constraints("params <= 9e5 or latency_ms <= 1")
    assert either.distance(FIGURES_OF_ONE) == pytest.approx(1 / 9)
    assert either.miss(FIGURES_OF_ONE) == (
        "params 1e+06 misses params <= 900000 by 1e+05 or latency_ms 2 misses latency_ms <= 1 by 1"
    )


@pytest.mark.parametrize(
    "text",
    [
        "params <= 1234567",
        "latency_ms <= 0.1",
        "params < 1 or latency_ms <= 2",
        "params < 1 or (latency_ms <= 2 and seconds < 9)",
    ],
)
def test_a_constraint_is_shown_as_it_was_written(text: str) -> None:
    (constraint,) = parse_constraints(text)
    assert str(constraint) == text
    assert parse_constraints(str(constraint)) == (constraint,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no constraint: a figure is missing; write FIGURE <= NUMBER, joined by `and`, `or`"),
        ("params == 5", "after 'params' comes one of <=, >=, <, >"),
        ("params 5", "after 'params' comes one of <=, >=, <, >"),
        ("params <= 5 and", "a figure is missing"),
        ("params <= 5 and or latency_ms < 1", "'or' is no figure"),
        ("params <=", "after <= comes a number"),
        ("params <= nan", "'nan' is no number"),
        ("params <= inf", "'inf' is no number"),
        ("params <= 1e999", "'1e999' is larger than any figure"),
        ("0.9 <= accuracy", "'0.9' is no figure"),
        ("not params <= 5", "there is no `not`: turn the comparison round"),
        ("(params <= 5", "a parenthesis is not closed"),
        ("params <= 5)", "')' is out of place"),
        ("__import__('os') <= 1", "is no constraint"),
        ("params <= __import__('os')", "is no number"),
        ("params.__class__ <= 1", "'params.__class__' is no figure"),
        ("latency <= 2", "unknown figure 'latency'; known: params, size_bytes, latency_ms, "),
        ("latency <= 2", "did you mean 'latency_ms'?"),
        ("parms <= 2", "did you mean 'params'?"),
        ("acuracy >= 0.9", "did you mean 'accuracy'?"),
        ("params <= 1e", "'e' behind 1: params has no such unit; write no unit"),
        ("size_bytes <= 4 MB", "'MB' behind 4: size_bytes has no such unit; write bytes, or no unit"),
        ("latency_ms <= 2 s", "'s' behind 2: latency_ms has no such unit; write ms, or no unit"),
        ("params <= 5 %", "'%' behind 5: params has no such unit"),
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


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("test_accuracy", "selection_accuracy"),
        ("test_nll", "selection_nll"),
        ("gain_over_control", "selection_gain"),
        ("test_agreement", "selection_agreement"),
        ("answered_classes", "selection_accuracy"),
    ],
)
def test_figures_of_the_test_split_are_refused_with_that_reason(name: str, instead: str) -> None:
    said = f"{name!r} is a figure of the test split, which chooses nobody: .* use {instead}"
    with pytest.raises(ValueError, match=said):
        parse_constraints(f"{name} >= 0.9")
    with pytest.raises(ValueError, match=said):
        figure_named(name)


def test_texts_that_are_long_or_deep_are_refused() -> None:
    deep = DEEPEST + 1
    with pytest.raises(ValueError, match="parentheses within each other"):
        parse_constraints("(" * deep + "params < 1" + ")" * deep)
    with pytest.raises(ValueError, match=f"allowed: {LONGEST:,}"):
        parse_constraints("params < 1 and " * LONGEST + "params < 1")


def test_a_name_like_no_figure_gets_no_hint() -> None:
    with pytest.raises(ValueError, match=r"unknown figure 'zzz'; known: [\w, ]+$"):
        parse_constraints("zzz <= 2")


def test_a_front_needs_two_figures() -> None:
    assert figures_named("accuracy, latency_ms,params") == ("selection_accuracy", "latency_ms", "params")
    for text in ("accuracy", "accuracy,selection_accuracy", ""):
        with pytest.raises(ValueError, match="a front needs two figures or more"):
            figures_named(text)


def test_every_figure_knows_which_way_is_better() -> None:
    better = {name for name in FIGURES if cost_of(name, 2.0) < cost_of(name, 1.0)}
    gains = {"selection_gain", "selection_gain_low"}
    assert better == {"selection_accuracy", "selection_agreement", *gains}
