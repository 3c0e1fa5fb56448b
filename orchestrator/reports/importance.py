"""How much each searched parameter matters to what ranks students, and how sure that is."""

from __future__ import annotations

import random
import statistics
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.records.ledger import TrialRecord
from orchestrator.records.selection import rank_trials, score_of
from orchestrator.reports.charts.search_axes import SearchAxis, search_axes, searched_row
from orchestrator.reports.run_facts import RunFacts

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

LEAST_TRIALS: Final = 20
"""Fewer completed trials say nothing."""
LEAST_FOR_TOP: Final = 100
"""So many have a best tenth that can be compared with the others."""
RESAMPLES: Final = 10
TREES: Final = 10
"""Of each forest: 100 in all, over which a share is a mean."""
MOST_DRAWN: Final = 500
"""Trials that a forest grows from, and that PED-ANOVA is told of; more take long and change little."""
CHANCE: Final = "a random number"
"""What each forest is given beside the parameters: a share like its own says nothing."""

# N = trials, M = trials of a forest, C = columns of values


class Share(NamedTuple):
    """The importance of one parameter, of all in its comparison together 1: its mean over the resamples."""

    name: str
    mean: float
    std: float
    top: float | None
    """Its share in whether a trial is among the best tenth, of all trials; none of few, and of `CHANCE`."""


class Importances(NamedTuple):
    """The parameters that some trials share, the most important first."""

    about: str
    n_trials: int
    shares: list[Share]


def importances(facts: RunFacts) -> list[Importances]:
    """Those of all completed trials, and of each objective's where there are several; none of too few."""
    completed = rank_trials(facts.records)
    objectives = sorted({record.objective for record in completed})
    cohorts = [("all trials", completed)]
    if len(objectives) > 1:
        cohorts += [
            (f"trials of {each}", [r for r in completed if r.objective == each]) for each in objectives
        ]
    found = (_of_cohort(facts, about, records) for about, records in cohorts)
    return [each for each in found if each is not None]


def _of_cohort(facts: RunFacts, about: str, records: Sequence[TrialRecord]) -> Importances | None:
    if len(records) < LEAST_TRIALS or len(set(map(score_of, records))) < 2:
        return None
    rows = [searched_row(record) for record in records]
    axes = [
        axis
        for axis in search_axes(records, facts.log_domains)
        if all(row.get(axis.name) is not None for row in rows)
    ]
    if not axes:
        return None
    return Importances(about, len(records), _shares(records, axes))


def _shares(records: Sequence[TrialRecord], axes: Sequence[SearchAxis]) -> list[Share]:
    """Mean decrease of impurity in random forests, each of trials drawn anew with replacement."""
    drawn: dict[str, list[float]] = {}
    rows = [searched_row(record) for record in records]
    own, own_NC = _columns(rows, axes)
    scores_N = np.array([score_of(record) for record in records])
    for number in range(RESAMPLES):
        draws = np.random.default_rng(number)
        drawn_M = draws.integers(len(records), size=min(len(records), MOST_DRAWN))
        chance_M1 = draws.random((len(drawn_M), 1))
        values_MC = np.hstack([own_NC[drawn_M], chance_M1])
        for name, share in forest_shares([*own, CHANCE], values_MC, scores_N[drawn_M], seed=number).items():
            drawn.setdefault(name, []).append(share)
    top = _top_shares(records, rows, axes) if len(records) >= LEAST_FOR_TOP else {}
    shares = [
        Share(name, statistics.fmean(values), statistics.stdev(values), top.get(name))
        for name, values in drawn.items()
    ]
    return sorted(shares, key=lambda share: -share.mean)


def forest_shares(
    names: Sequence[str], values_MC: NDArray[np.float64], scores_M: NDArray[np.float64], *, seed: int
) -> dict[str, float]:
    """By name, the mean decrease of impurity in one random forest; together 1, or 0 of equal scores.

    These are the shares of Optuna's `MeanDecreaseImpurityImportanceEvaluator` with as many trees: several
    columns of one name are the members of a list. Optuna itself would be given a study of these trials, and
    to make one for each forest takes longer than all else on the page.
    """
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(n_estimators=TREES, max_depth=64, random_state=seed)
    forest.fit(values_MC, scores_M)
    shares = dict.fromkeys(names, 0.0)
    for name, share in zip(names, forest.feature_importances_.tolist(), strict=True):
        shares[name] += share
    return shares


def _columns(
    rows: Sequence[Mapping[str, Any]], axes: Sequence[SearchAxis]
) -> tuple[list[str], NDArray[np.float64]]:
    """The values of all trials as numbers, a column for each number and for each member of a list."""
    names: list[str] = []
    columns: list[list[float]] = []
    for axis in axes:
        if axis.numeric:
            members = [[float(row[axis.name]) for row in rows]]
        else:
            members = [[float(str(row[axis.name]) == value) for row in rows] for value in axis.values]
        names += [axis.name] * len(members)
        columns += members
    return names, np.array(columns).T


def _top_shares(
    records: Sequence[TrialRecord], rows: Sequence[Mapping[str, Any]], axes: Sequence[SearchAxis]
) -> dict[str, float]:
    """By name, the share in whether a trial is among the best tenth: Optuna's PED-ANOVA."""
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    distributions = {axis.name: _distribution(axis, rows) for axis in axes}
    # Sorted: Optuna 5.0 sorts the parameters of the trials, but gives the shares by the order asked for.
    names = sorted(distributions)
    few = random.Random(0).sample(range(len(records)), min(len(records), MOST_DRAWN))  # noqa: S311 (no secret)
    with _quiet():
        study = optuna.create_study(direction="maximize")
        for place in sorted(few):
            row = rows[place]
            values = {axis.name: row[axis.name] if axis.numeric else str(row[axis.name]) for axis in axes}
            study.add_trial(
                optuna.create_trial(
                    params=values, distributions=distributions, value=score_of(records[place])
                )
            )
        shares: dict[str, float] = get_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(), params=names
        )
    return shares


def _distribution(axis: SearchAxis, rows: Sequence[Mapping[str, Any]]) -> BaseDistribution:
    """What the trials span: the space may be wider, but of that nobody knows anything."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not axis.numeric:
        return CategoricalDistribution(axis.values)
    low, high = axis.values
    if all(isinstance(row[axis.name], int) for row in rows):
        return IntDistribution(int(low), int(high), log=axis.log)
    return FloatDistribution(float(low), float(high), log=axis.log)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's lines about studies that live in memory for a moment."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)
