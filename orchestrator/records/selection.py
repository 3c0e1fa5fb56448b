"""Which students go on and which one is the champion: pure functions of records and figures.

The test split has no part in any of these decisions: they see one figure of the selection split alone, that
which the search space names; it is accuracy where it names none.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import Field
from scipy.special import stdtrit  # type: ignore[import-untyped]

from orchestrator.config.constraints import Condition
from orchestrator.config.picking.figures import FIGURES
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.picking.nearest_miss import CLOSEST_NAMED, nobody_fits
from trainables.config import Config
from trainables.config.metrics import NLL, RankBy
from trainables.errors import StillhouseError

CONFIDENCE = 0.95
FIELDS_OF_COSTS: Final = frozenset(name for name, figure in FIGURES.items() if figure.is_of_costs)

Figures = Mapping[str, Mapping[str, float]]
"""By trial id: `params`, `size_bytes` and `latency_ms` of its student."""


class PairedDifference(Config):
    """Accuracy gained over other students, seed by seed; the interval needs two seeds or more."""

    n: int = Field(ge=1, description="seeds that both were trained with")
    mean: float
    std: float | None = Field(description="sample standard deviation (n - 1)")
    low: float | None = Field(description="lower end of the 95 % t-interval of the mean")
    high: float | None = Field(description="upper end of the 95 % t-interval of the mean")


class Group(Config):
    """One objective and set of hyper-parameters, trained with several seeds."""

    objective: str
    parameters: dict[str, Any]
    records: tuple[TrialRecord, ...] = Field(min_length=1, description="completed, by seed")

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, ascending."""
        return tuple(seed_of(record) for record in self.records)

    @property
    def rank_by(self) -> RankBy:
        """The figure that its students are ranked by."""
        return self.records[0].rank_by

    @property
    def scores(self) -> tuple[float, ...]:
        """That figure of the kept weights on the selection split, in the order of the seeds."""
        return tuple(score_of(record) for record in self.records)

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.records)

    @property
    def mean(self) -> float:
        """Mean of the scores over the seeds: what the group may claim."""
        return statistics.fmean(self.scores)

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1) over the seeds; none with a single seed."""
        return statistics.stdev(self.scores) if self.n > 1 else None

    @property
    def representative(self) -> TrialRecord:
        """The seed whose weights are exported: the best score, then nll, then the lower seed."""
        return min(self.records, key=lambda r: (-score_of(r), r.best.get(NLL, math.inf), seed_of(r)))


class SelectedChampion(Config):
    """The champion: its claim is the mean of its group, its weights are those of one seed."""

    group: Group
    record: TrialRecord
    tie: str | None = Field(None, description="what told it apart from one as good; none where none was")


def rank_trials(records: Sequence[TrialRecord], figures: Figures | None = None) -> list[TrialRecord]:
    """Completed trials, best first; pruned and failed ones never had their full budget and are left out.

    By the score of the kept epoch; ties go to fewer parameters (where figures are given), then
    lower nll, then the trial id.
    """
    return sorted(_completed(records), key=lambda record: _rank(record, figures))


def choose_finalists(
    records: Sequence[TrialRecord],
    figures: Figures,
    constraints: Sequence[Condition],
    k: int,
    *,
    each_objective: bool = False,
) -> list[TrialRecord]:
    """The best trials that meet the constraints on costs, at most `k`, no hyper-parameters twice.

    With `each_objective` no objective twice either.

    What is known only over the seeds, as the mean accuracy, is asked of the champion and not here.

    Raises:
        NobodyFits: none meets the constraints.
        StillhouseError: no trial was completed.
    """
    ranked = rank_trials(records, figures)
    if not ranked:
        raise StillhouseError(_nothing_completed(records))
    costs = {record.trial: _costs(record.trial, figures) for record in ranked}
    allowed = [r for r in ranked if all(each.may_hold(costs[r.trial]) for each in constraints)]
    if not allowed:
        places = {record.trial: place for place, record in enumerate(ranked)}
        everything = {r.trial: {**costs[r.trial], "selection_accuracy": score_of(r)} for r in ranked}
        asked = [each for each in constraints if each.fields & set(FIELDS_OF_COSTS)]
        raise nobody_fits(everything, asked, lambda name: (places[name],))
    distinct: dict[str, TrialRecord] = {}
    for record in allowed:
        distinct.setdefault(record.objective if each_objective else hyper_parameters_key(record), record)
    return list(distinct.values())[:k]


def group_trials(records: Sequence[TrialRecord]) -> list[Group]:
    """Completed trials by objective and hyper-parameters, best mean first, seeds ascending."""
    members: dict[str, list[TrialRecord]] = {}
    for record in _completed(records):
        members.setdefault(hyper_parameters_key(record), []).append(record)
    groups = map(group_of, members.values())
    return sorted(groups, key=lambda group: (-group.mean, group.records[0].trial))


def group_of(records: Sequence[TrialRecord]) -> Group:
    """One group of students that differ in their seed alone."""
    return Group(
        objective=records[0].objective,
        parameters=records[0].parameters,
        records=tuple(sorted(records, key=lambda record: (seed_of(record), record.trial))),
    )


def paired_difference(values: Mapping[int, float], control: Mapping[int, float]) -> PairedDifference:
    """Mean gain over other students with the same seeds, d_s = value_s - control_s; both maps are by seed.

    The 95 % interval of the mean is d̄ ± t(0.975, n - 1) · s / √n (Student's paired t).

    Raises:
        StillhouseError: no seed is in both.
    """
    seeds = sorted(values.keys() & control.keys())
    if not seeds:
        raise StillhouseError(
            f"no common seed to compare with the control: {sorted(values)} and {sorted(control)}; "
            f"train both with the same seeds"
        )
    differences = [values[seed] - control[seed] for seed in seeds]
    n, mean = len(seeds), statistics.fmean(differences)
    if n == 1:
        return PairedDifference(n=1, mean=mean, std=None, low=None, high=None)
    std = statistics.stdev(differences)
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * std / math.sqrt(n)
    return PairedDifference(n=n, mean=mean, std=std, low=mean - half, high=mean + half)


def score_of(record: TrialRecord) -> float:
    """The figure of the selection split that a student is ranked by.

    Raises:
        KeyError: it has none, as before its first epoch.
    """
    return record.best[record.rank_by.metric]


def seed_of(record: TrialRecord) -> int:
    """The seed of a trial's weights and batch order."""
    return int(record.spec["seed"])


def hyper_parameters_key(record: TrialRecord) -> str:
    """Equal for trials of the same objective and searched values."""
    return json.dumps([record.objective, record.parameters], sort_keys=True, default=str)


def _completed(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    return [record for record in records if record.status == "completed" and record.score is not None]


def _rank(record: TrialRecord, figures: Figures | None) -> tuple[float, float, float, str]:
    params = 0.0 if figures is None else _costs(record.trial, figures)["params"]
    return -score_of(record), params, record.best.get(NLL, math.inf), record.trial


def _costs(trial: str, figures: Figures) -> dict[str, float]:
    """What is known of a student before it is trained with several seeds."""
    if trial not in figures:
        raise StillhouseError(f"trial {trial} was never profiled; measure its student before ranking")
    return {name: value for name, value in figures[trial].items() if name in FIELDS_OF_COSTS}


def _nothing_completed(records: Sequence[TrialRecord]) -> str:
    states = {
        status: sum(r.status == status for r in records) for status in sorted({r.status for r in records})
    }
    counts = ", ".join(f"{count} {status}" for status, count in states.items()) or "none was started"
    reasons = sorted({r.reason for r in records if r.reason})[:CLOSEST_NAMED]
    why = f"; reasons: {' | '.join(reasons)}" if reasons else ""
    return f"no trial was completed ({counts}), so there is nobody to choose{why}"
