"""Gains of several finalists looked at together: Holm's p values, and intervals that hold at once."""

from __future__ import annotations

import random
import statistics
from itertools import combinations

import pytest
from scipy import stats  # type: ignore[import-untyped]

from orchestrator.records.picking.several_gains import holm, p_value, together
from orchestrator.records.selection import PairedDifference, paired_difference
from orchestrator.records.student_figures import taken_together
from orchestrator.records.summary import Summary
from orchestrator.records.tables.more_columns import taken_together_text


def gain_of(*differences: float) -> PairedDifference:
    return paired_difference(dict(enumerate(differences)), dict.fromkeys(range(len(differences)), 0.0))


def test_holms_p_values_are_those_of_a_worked_example() -> None:
    """Four hypotheses with 0.01, 0.04, 0.03 and 0.005: times 4, 3, 2, 1 in their order, never falling."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_p_values_stay_at_most_one_and_keep_their_order() -> None:
    assert holm([0.9, 0.6, 0.5]) == [1.0, 1.0, 1.0]
    assert holm([]) == []
    assert holm([0.2]) == [0.2]


def test_holm_is_the_closed_test_with_bonferroni() -> None:
    """A hypothesis falls where every set that it is in falls by Bonferroni: tried over all sets."""
    drawn = random.Random(5)
    for _ in range(50):
        p_values = [drawn.random() ** 3 for _ in range(4)]
        sets = [s for n in range(1, 5) for s in combinations(range(4), n)]
        closed = [
            max(min(1.0, len(s) * min(p_values[k] for k in s)) for s in sets if place in s)
            for place in range(4)
        ]
        assert holm(p_values) == pytest.approx(closed)


def test_the_p_value_is_scipys_paired_test() -> None:
    differences = (0.01, 0.03, 0.02, 0.0, 0.04)
    expected = stats.ttest_1samp(differences, 0.0).pvalue
    assert p_value(gain_of(*differences)) == pytest.approx(expected)
    assert p_value(gain_of(0.01)) is None
    assert p_value(gain_of(0.25, 0.25)) == 0.0
    assert p_value(gain_of(0.0, 0.0)) == 1.0


def test_one_gain_alone_is_left_as_it_is() -> None:
    assert together([gain_of(0.01, 0.02), None, gain_of(0.01)]) == [None, None, None]


def test_intervals_of_two_gains_are_wider_than_that_of_each() -> None:
    gains = [gain_of(0.01, 0.03, 0.02), gain_of(0.05, 0.04, 0.06)]
    for gain, found in zip(gains, together(gains), strict=True):
        assert found is not None
        assert gain.low is not None
        assert found.low < gain.low
        quantile = stats.t.ppf(1 - 0.05 / 4, 2)
        assert found.high - gain.mean == pytest.approx(quantile * (gain.std or 0.0) / 3**0.5)


def test_where_nothing_is_gained_one_run_in_twenty_at_most_says_otherwise() -> None:
    """And all intervals hold at once as often as they claim: drawn with one control for all finalists."""
    drawn = random.Random(11)
    n_runs, n_seeds, n_finalists = 400, 4, 5
    wrong = missed = alone = 0
    for _ in range(n_runs):
        control = {seed: drawn.gauss(0, 1) for seed in range(n_seeds)}
        gains = [
            paired_difference({seed: drawn.gauss(0, 1) for seed in control}, control)
            for _ in range(n_finalists)
        ]
        found = [each for each in together(gains) if each is not None]
        wrong += any(each.is_significant for each in found)
        missed += any(not each.low <= 0 <= each.high for each in found)
        alone += any(each.p < 0.05 for each in found)
    # Three standard deviations of a count of 5 % are 0.033.
    assert wrong / n_runs <= 0.05 + 0.033
    assert missed / n_runs <= 0.05 + 0.033
    assert alone / n_runs > 0.08  # what is told of each alone would mislead


def test_the_sentence_names_each_finalist_with_its_p_and_its_interval(summary: Summary) -> None:
    finalists = taken_together(summary.finalists)
    (sentence,) = taken_together_text(finalists)
    assert sentence.startswith("Test gains of 2 finalists taken together, p by Holm, ")
    assert "finalist 1 +4.00 [+0.42, +7.58] (p 0.040)" in sentence
    gains = [finalist.test_gain.mean for finalist in finalists]
    assert statistics.fmean(gains) > 0
    assert taken_together_text(summary.finalists) == []
    assert taken_together_text(taken_together(finalists[:1])) == []
