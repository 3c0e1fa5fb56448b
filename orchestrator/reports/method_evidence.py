"""What a ledger says of each objective: several seeds, beside the control and KD with the same seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.records.events import EpochEnded, StageEvent
from orchestrator.records.ledger import Ledger, TrialRecord
from orchestrator.records.selection import (
    Figures,
    Group,
    PairedDifference,
    group_trials,
    hyper_parameters_key,
    paired_difference,
    seed_of,
)
from trainables.config import OBJECTIVE_CONFIGS, Role
from trainables.errors import StillhouseError

KD: Final = "kd"
PERCENT: Final = 100.0


@dataclass(frozen=True)
class Evidence:
    """One objective with one set of hyper-parameters, over its seeds; test accuracies in per cent."""

    objective: str
    parameters: dict[str, Any]
    """The searched values that are not the objective's defaults."""
    accuracies: tuple[float, ...]
    """By seed, ascending."""
    interval: tuple[float, float] | None
    """95 % t-interval of their mean; none with one seed."""
    over_ce: PairedDifference | None
    """In points; none for cross-entropy itself."""
    over_kd: PairedDifference | None
    """In points, to KD at its defaults; none for that itself, and where no such student was trained."""
    agreement: float | None
    """Mean share, in per cent, of test images that get the teacher's class."""
    ece: float
    """Mean expected calibration error, in per cent."""
    epoch_over_ce: float
    """Median seconds of an epoch over the control's."""

    @property
    def mean(self) -> float:
        """Mean test accuracy, in per cent."""
        return statistics.fmean(self.accuracies)

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1) of the test accuracies, in points."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None


@dataclass(frozen=True)
class Failed:
    """Seeds of one objective with one set of hyper-parameters that no row has a part of."""

    objective: str
    parameters: dict[str, Any]
    reasons: tuple[str, ...]
    """Why, one for each."""


@dataclass(frozen=True)
class SearchEvidence:
    """One search of the ledger: its control, and what it trained with several seeds, best first."""

    search: str
    trials: int
    """Students of the search itself."""
    student: dict[str, Any]
    """The control's network as plain data."""
    control: Evidence
    groups: tuple[Evidence, ...]
    failures: tuple[Failed, ...] = ()


def evidence_of(ledger: Ledger) -> list[SearchEvidence]:
    """Every search of the ledger that was finished up to the test split, in the order of their start.

    Raises:
        StillhouseError: none was.
    """
    tested = _tested(ledger)
    seconds = _epoch_seconds(ledger)
    names = dict.fromkeys(record.search for record in ledger.trials())
    searches = [found for name in names if (found := _Search.found(ledger, name, tested))]
    complete = [_of_search(search, searches, tested, seconds) for search in searches]
    if not complete:
        raise StillhouseError(
            f"{ledger.path} holds no search whose finalists were tested; run the experiment to its end first"
        )
    return complete


def is_significant(difference: PairedDifference) -> bool:
    """Whether the 95 % interval of a paired difference leaves out 0."""
    return difference.low is not None and difference.high is not None and difference.low * difference.high > 0


def _tested(ledger: Ledger) -> Figures:
    merged: dict[str, Mapping[str, float]] = {}
    for event in ledger.events_of(StageEvent):
        if (event.stage, event.status) == ("test", "finished"):
            merged |= event.found
    return merged


def _epoch_seconds(ledger: Ledger) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {}
    for event in ledger.events_of(EpochEnded):
        seconds.setdefault(event.trial, []).append(event.metrics["seconds"])
    return seconds


@dataclass(frozen=True)
class _Search:
    name: str
    trials: int
    control: Group
    finalists: tuple[Group, ...]
    failures: tuple[TrialRecord, ...]
    """Students of the control and of finalists that ended without weights."""

    @classmethod
    def found(cls, ledger: Ledger, name: str, tested: Figures) -> _Search | None:
        """None where finalists or control were not tested."""
        of_role = {role: ledger.trials(search=name, role=role) for role in Role}
        controls, finalists = (
            group_trials([record for record in of_role[role] if record.trial in tested])
            for role in (Role.BASELINE, Role.FINALIST)
        )
        if not controls or not finalists:
            return None
        repeated = [*of_role[Role.BASELINE], *of_role[Role.FINALIST]]
        failures = tuple(record for record in repeated if record.status == "failed")
        return cls(name, len(of_role[Role.SEARCH]), controls[0], tuple(finalists), failures)

    @property
    def kd(self) -> Group | None:
        """KD at its defaults."""
        groups = (group for group in self.finalists if group.objective == KD)
        return next((group for group in groups if not _changed(group.records[0])), None)

    @property
    def conditions(self) -> list[Any]:
        """What its students share with those of another search that they may be compared with."""
        return [[r.spec.get("student"), r.spec.get("training"), r.spec["seed"]] for r in self.control.records]

    def failed(self) -> Iterator[Failed]:
        """What failed, by group."""
        by_group: dict[str, list[TrialRecord]] = {}
        for record in self.failures:
            by_group.setdefault(hyper_parameters_key(record), []).append(record)
        for records in by_group.values():
            reasons = tuple(record.reason or "no reason given" for record in records)
            yield Failed(records[0].objective, _changed(records[0]), reasons)


def _changed(record: TrialRecord) -> dict[str, Any]:
    """The searched values of a student that are not its objective's defaults."""
    defaults = OBJECTIVE_CONFIGS[record.objective].defaults()
    searched = {name: value for name, value in record.parameters.items() if name != "objective"}
    return {
        name: value for name, value in searched.items() if name not in defaults or defaults[name] != value
    }


def _of_search(
    search: _Search, searches: Sequence[_Search], tested: Figures, seconds: Mapping[str, Sequence[float]]
) -> SearchEvidence:
    comparable = [search, *(other for other in searches if other.conditions == search.conditions)]
    kd = next((other.kd for other in comparable if other.kd), None)
    judge = _Judge(search.control, kd, tested, seconds)
    groups = sorted(map(judge.evidence, search.finalists), key=lambda evidence: -evidence.mean)
    student = search.control.records[0].spec.get("student", {})
    return SearchEvidence(
        search.name,
        search.trials,
        student,
        judge.evidence(search.control),
        tuple(groups),
        tuple(search.failed()),
    )


@dataclass(frozen=True)
class _Judge:
    control: Group
    kd: Group | None
    tested: Figures
    seconds: Mapping[str, Sequence[float]]

    def evidence(self, group: Group) -> Evidence:
        mine = self._by_seed(group, "accuracy")
        # The mean's own interval is that of its difference to nothing.
        alone = paired_difference(mine, dict.fromkeys(mine, 0.0))
        interval = None if alone.low is None or alone.high is None else (alone.low, alone.high)
        is_control = group is self.control
        is_kd = self.kd is None or group is self.kd
        agreement = self._by_seed(group, "agreement")
        return Evidence(
            objective=group.objective,
            parameters=_changed(group.records[0]),
            accuracies=tuple(mine[seed] for seed in sorted(mine)),
            interval=interval,
            over_ce=None if is_control else paired_difference(mine, self._by_seed(self.control, "accuracy")),
            over_kd=None if is_kd else paired_difference(mine, self._by_seed(self._kd(), "accuracy")),
            agreement=statistics.fmean(agreement.values()) if agreement else None,
            ece=statistics.fmean(self._by_seed(group, "ece").values()),
            epoch_over_ce=self._epoch_s(group) / self._epoch_s(self.control),
        )

    def _kd(self) -> Group:
        assert self.kd is not None  # noqa: S101  asked for only where there is one
        return self.kd

    def _by_seed(self, group: Group, figure: str) -> dict[int, float]:
        """In per cent; only of those that have it."""
        return {
            seed_of(record): PERCENT * self.tested[record.trial][figure]
            for record in group.records
            if figure in self.tested[record.trial]
        }

    def _epoch_s(self, group: Group) -> float:
        return statistics.median(second for record in group.records for second in self._seconds(record))

    def _seconds(self, record: TrialRecord) -> Sequence[float]:
        return self.seconds[record.trial]
