"""How much each searched parameter matters to what ranks students, and how sure that is."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from orchestrator.records.ledger import TrialRecord
from orchestrator.records.selection import rank_trials, score_of
from orchestrator.reports.charts.search_axes import SearchAxis, search_axes, searched_row
from orchestrator.reports.run_facts import RunFacts

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study

LEAST_TRIALS: Final = 20
"""Fewer completed trials say nothing."""
LEAST_FOR_TOP: Final = 100
"""So many have a best tenth that can be compared with the others."""
RESAMPLES: Final = 10
MOST_DRAWN: Final = 2000
"""Trials that a forest grows from; more would take long and change little."""
CHANCE: Final = "a random number"
"""What each forest is given beside the parameters: a share like its own says nothing."""


class Share(NamedTuple):
    """The importance of one parameter, of all in its comparison together 1: its mean over the resamples."""

    name: str
    mean: float
    std: float
    top: float | None
    """Its share in whether a trial is among the best tenth; none of few trials, and of `CHANCE`."""


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
    from optuna.importance import (
        MeanDecreaseImpurityImportanceEvaluator,
        PedAnovaImportanceEvaluator,
        get_param_importances,
    )

    drawn: dict[str, list[float]] = {}
    top: dict[str, list[float]] = {}
    # Sorted: Optuna 5.0 sorts the parameters of the trials, but gives the shares by the order asked for.
    names = sorted(axis.name for axis in axes)
    with _quiet():
        for number in range(RESAMPLES):
            study = _resampled(records, axes, Random(number))  # noqa: S311 (a resample, no secret)
            forest = MeanDecreaseImpurityImportanceEvaluator(seed=number)
            _note(drawn, get_param_importances(study, evaluator=forest, params=sorted([*names, CHANCE])))
            if len(records) >= LEAST_FOR_TOP:
                _note(
                    top, get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), params=names)
                )
    shares = [
        Share(
            name,
            statistics.fmean(values),
            statistics.stdev(values),
            statistics.fmean(top[name]) if name in top else None,
        )
        for name, values in drawn.items()
    ]
    return sorted(shares, key=lambda share: -share.mean)


def _note(known: dict[str, list[float]], found: Mapping[str, float]) -> None:
    for name, value in found.items():
        known.setdefault(name, []).append(value)


def _resampled(records: Sequence[TrialRecord], axes: Sequence[SearchAxis], random: Random) -> Study:
    """As many trials, drawn with replacement, beside their parameters with one that is pure chance."""
    import optuna

    distributions = {axis.name: _distribution(axis, records) for axis in axes}
    distributions[CHANCE] = optuna.distributions.FloatDistribution(0, 1)
    study = optuna.create_study(direction="maximize")
    for record in random.choices(records, k=min(len(records), MOST_DRAWN)):
        row = searched_row(record)
        values = {axis.name: row[axis.name] if axis.numeric else str(row[axis.name]) for axis in axes}
        values[CHANCE] = random.random()
        study.add_trial(
            optuna.create_trial(params=values, distributions=distributions, value=score_of(record))
        )
    return study


def _distribution(axis: SearchAxis, records: Sequence[TrialRecord]) -> BaseDistribution:
    """What the trials span: the space may be wider, but of that nobody knows anything."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not axis.numeric:
        return CategoricalDistribution(axis.values)
    low, high = axis.values
    values: list[Any] = [searched_row(record)[axis.name] for record in records]
    if all(isinstance(value, int) for value in values):
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
