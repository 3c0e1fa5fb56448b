"""What a ledger says of each objective: several seeds, beside its control and KD with the same seeds."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.records.events import EpochEnded, StageEvent
from orchestrator.records.ledger import Ledger, TrialRecord
from orchestrator.records.relations import (
    control_of,
    controls_of,
    controls_of_equal_compute,
    is_without_teacher,
    setting_of,
)
from orchestrator.records.selection import (
    Figures,
    Group,
    PairedDifference,
    group_trials,
    hyper_parameters_key,
    paired_difference,
    seed_of,
)
from orchestrator.reports.evidence import Controlled, Evidence, Failed, SearchEvidence
from trainables.config import OBJECTIVE_CONFIGS, Role
from trainables.errors import StillhouseError

KD: Final = "kd"
PERCENT: Final = 100.0


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
    finalists: tuple[Group, ...]
    students: tuple[TrialRecord, ...]
    """Those of controls and finalists that were tested."""
    failures: tuple[TrialRecord, ...]
    """Students of controls and finalists that ended without weights."""
    is_tuned: bool = False

    @classmethod
    def found(cls, ledger: Ledger, name: str, tested: Figures) -> _Search | None:
        """None where finalists or controls were not tested."""
        of_role = {role: ledger.trials(search=name, role=role) for role in Role}
        repeated = [*of_role[Role.BASELINE], *of_role[Role.FINALIST]]
        students = [record for record in repeated if record.trial in tested]
        finalists = group_trials([record for record in students if record.role is Role.FINALIST])
        if not any(is_without_teacher(record, name) for record in students) or not finalists:
            return None
        failures = tuple(record for record in repeated if record.status == "failed")
        tuned = _is_tuned(of_role[Role.SEARCH], finalists)
        return cls(name, len(of_role[Role.SEARCH]), tuple(finalists), tuple(students), failures, tuned)

    def kd_like(self, group: Group) -> Group | None:
        """KD at its defaults, with the same student and recipe; or at its best where all objectives are."""
        of_kd = (own for own in self.finalists if own.objective == KD)
        if self.is_tuned:
            alike = setting_of(group.records[0])
            return next((own for own in of_kd if setting_of(own.records[0]) == alike), None)
        plain = (own for own in of_kd if not _changed_of_objective(own.records[0]))
        return next((own for own in plain if _conditions(own) == _conditions(group)), None)

    def failed(self) -> Iterator[Failed]:
        """What failed, by group."""
        by_group: dict[str, list[TrialRecord]] = {}
        for record in self.failures:
            by_group.setdefault(hyper_parameters_key(record), []).append(record)
        for records in by_group.values():
            reasons = tuple(record.reason or "no reason given" for record in records)
            yield Failed(records[0].objective, _changed(records[0]), reasons)


def _is_tuned(searched: Sequence[TrialRecord], finalists: Sequence[Group]) -> bool:
    """Whether each objective had several trials, and its best is the one finalist of it."""
    trials = Counter(record.objective for record in searched)
    names = [finalist.objective for finalist in finalists]
    return len(trials) > 1 and min(trials.values()) > 1 and len(names) == len(set(names)) > 1


def _changed(record: TrialRecord) -> dict[str, Any]:
    """The searched values of a student that are not its objective's defaults."""
    defaults = OBJECTIVE_CONFIGS[record.objective].defaults()
    searched = {name: value for name, value in record.parameters.items() if name != "objective"}
    return {
        name: value for name, value in searched.items() if name not in defaults or defaults[name] != value
    }


def _changed_of_objective(record: TrialRecord) -> dict[str, Any]:
    return {n: v for n, v in _changed(record).items() if not n.startswith(("student.", "training."))}


def _conditions(group: Group) -> list[Any]:
    """What students share with those of another search that they may be compared with."""
    spec = group.records[0].spec
    recipe = {name: v for name, v in spec.get("training", {}).items() if name != "checkpoint_every"}
    return [spec.get("student"), recipe, group.rank_by]


def _of_search(
    search: _Search, searches: Sequence[_Search], tested: Figures, seconds: Mapping[str, Sequence[float]]
) -> SearchEvidence:
    judge = _Judge([search, *searches], tested, seconds)
    by_control: dict[tuple[str, ...], list[Group]] = {}
    for finalist in search.finalists:
        control = control_of(finalist.records[0], search.students)
        by_control.setdefault(_trials(control), []).append(finalist)
    found = [_controlled(judge, search, finalists) for finalists in by_control.values()]
    networks = [finalist.records[0].spec.get("student", {}) for finalist in search.finalists]
    shared = {n: v for n, v in networks[0].items() if all(other.get(n) == v for other in networks)}
    return SearchEvidence(
        search.name,
        search.trials,
        shared,
        tuple(sorted(found, key=lambda controlled: -controlled.finalists[0].mean)),
        tuple(search.failed()),
        search.is_tuned,
        search.finalists[0].rank_by,
    )


def _controlled(judge: _Judge, search: _Search, finalists: Sequence[Group]) -> Controlled:
    """Finalists that have one control."""
    control, *others = controls_of(finalists[0].records[0], search.students)
    own = {_trials(finalist): judge.evidence(finalist, control) for finalist in finalists}
    beside = [judge.evidence(other, control) for other in others if _trials(other) not in own]
    found = [controls_of_equal_compute(each.records[0], search.students)[:1] for each in finalists]
    longer = {_trials(one): one for groups in found for one in groups if _trials(one) not in own}
    return Controlled(
        own.get(_trials(control)) or judge.evidence(control, control),
        tuple(beside),
        tuple(sorted(own.values(), key=lambda evidence: -evidence.mean)),
        tuple(judge.evidence(one, control) for one in longer.values()),
    )


def _trials(group: Group) -> tuple[str, ...]:
    return tuple(record.trial for record in group.records)


@dataclass(frozen=True)
class _Judge:
    searches: Sequence[_Search]
    """The group's own first."""
    tested: Figures
    seconds: Mapping[str, Sequence[float]]

    def evidence(self, group: Group, control: Group) -> Evidence:
        mine = self._by_seed(group, group.rank_by)
        # The mean's own interval is that of its difference to nothing.
        alone = paired_difference(mine, dict.fromkeys(mine, 0.0))
        interval = None if alone.low is None or alone.high is None else (alone.low, alone.high)
        is_control = _trials(group) == _trials(control)
        agreement = self._by_seed(group, "agreement")
        return Evidence(
            objective=group.objective,
            parameters=_changed(group.records[0]),
            accuracies=tuple(mine[seed] for seed in sorted(mine)),
            interval=interval,
            over_ce=None if is_control else paired_difference(mine, self._by_seed(control, group.rank_by)),
            over_kd=self._over_kd(group, mine),
            agreement=statistics.fmean(agreement.values()) if agreement else None,
            ece=statistics.fmean(self._by_seed(group, "ece").values()),
            over_same_compute=self._over_same_compute(group, mine),
            epochs=group.records[0].spec.get("training", {}).get("epochs"),
            epoch_over_ce=self._epoch_s(group) / self._epoch_s(control),
            lacks_own_control=setting_of(group.records[0]) != setting_of(control.records[0]),
        )

    def _over_same_compute(self, group: Group, mine: Mapping[int, float]) -> PairedDifference | None:
        for control in controls_of_equal_compute(group.records[0], self.searches[0].students)[:1]:
            theirs = self._by_seed(control, group.rank_by)
            if mine.keys() & theirs.keys():
                return paired_difference(mine, theirs)
        return None

    def _over_kd(self, group: Group, mine: Mapping[int, float]) -> PairedDifference | None:
        for kd in filter(None, (search.kd_like(group) for search in self.searches)):
            theirs = self._by_seed(kd, group.rank_by)
            if mine.keys() & theirs.keys():
                return None if _trials(kd) == _trials(group) else paired_difference(mine, theirs)
        return None

    def _by_seed(self, group: Group, figure: str) -> dict[int, float]:
        """In per cent; only of those that have it."""
        found = {seed_of(record): self.tested[record.trial] for record in group.records}
        return {seed: PERCENT * figures[figure] for seed, figures in found.items() if figure in figures}

    def _epoch_s(self, group: Group) -> float:
        return statistics.median(second for record in group.records for second in self.seconds[record.trial])
