"""What a page tells of a run, from its ledger: also while it goes on, when there is no summary yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.config.loading import LoadedExperiment
from orchestrator.records.costs import StudentCosts
from orchestrator.records.events import Event, StageEvent
from orchestrator.records.kept_answers import NO_ANSWERS, RunAnswers, run_answers
from orchestrator.records.ledger import Ledger, TrialRecord
from orchestrator.records.selection import Figures
from orchestrator.records.summary import Summary
from search_spaces.domains import Range
from search_spaces.space import SpaceConfig
from trainables.config import Role, TrialSpec
from trainables.config.metrics import RankBy


@dataclass(frozen=True)
class RunFacts:
    """A run as the report shows it; without a summary it is not over, and has no champion."""

    experiment: str
    records: Sequence[TrialRecord]
    """Trials of the search."""
    events: Sequence[Event] = ()
    """The ledger's."""
    summary: Summary | None = None
    figures: Figures = field(default_factory=dict)
    """Costs of those trials that were measured, by trial id."""
    repeated: Sequence[TrialRecord] = ()
    """Finalists and controls of that search."""
    trials: int | None = None
    """The budget of trials; none where it is not known."""
    where: str | None = None
    """What the champion had to satisfy."""
    log_domains: Mapping[str, bool] = field(default_factory=dict)
    """Whether the space searches a parameter by its logarithm; of a list it says nothing."""
    answers: RunAnswers = NO_ANSWERS
    """Of the champion and its control to the test split; of a run that is not over there are none."""

    @property
    def rank_by(self) -> RankBy:
        """The figure that students are ranked by."""
        if self.summary is not None:
            return self.summary.rank_by
        return self.records[0].rank_by if self.records else RankBy.ACCURACY

    @property
    def stages(self) -> list[StageEvent]:
        """Beginnings and ends of stages, in their order."""
        return [event for event in self.events if isinstance(event, StageEvent)]


def facts_of(loaded: LoadedExperiment, ledger: Ledger, summary: Summary | None = None) -> RunFacts:
    """What a ledger tells of an experiment: of the search that the summary is of, else of the latest one."""
    search = _search_of(ledger, summary)
    records = ledger.trials(search=search, role=Role.SEARCH) if search else []
    everyone = ledger.trials(search=search) if search else []
    events = ledger.events()
    return RunFacts(
        experiment=loaded.config.name,
        records=records,
        events=events,
        summary=summary,
        figures=_costs(records, events, summary),
        repeated=[record for record in everyone if record.role is not Role.SEARCH],
        trials=loaded.config.budget.trials,
        where=summary.picked.where if summary is not None and summary.picked is not None else None,
        log_domains=log_domains(loaded.space),
        answers=NO_ANSWERS if summary is None else run_answers(ledger.folder, summary, _tests(events)),
    )


def log_domains(space: SpaceConfig) -> dict[str, bool]:
    """Of each searched range, by the name that trials have it under, whether it is logarithmic."""
    return {
        name if section == objective else f"{section}.{name}": domain.log
        for objective in space.objective_names
        for (section, name), domain in space.domains(objective).items()
        if isinstance(domain, Range)
    }


def _search_of(ledger: Ledger, summary: Summary | None) -> str | None:
    if summary is not None:
        for row in summary.trials:
            record = ledger.trial(row.id)
            if record is not None:
                return record.search
    latest = ledger.trials(role=Role.SEARCH)
    return latest[-1].search if latest else None


def _tests(events: Sequence[Event]) -> list[dict[str, dict[str, float]]]:
    """What each test found, the latest last."""
    stages = (event for event in events if isinstance(event, StageEvent) and event.stage == "test")
    return [event.found for event in stages if event.status == "finished"]


def _costs(records: Sequence[TrialRecord], events: Sequence[Event], summary: Summary | None) -> Figures:
    """Those of the summary, and those that the run has measured since it has no summary."""
    if summary is not None:
        return {
            row.id: {"params": row.params, "size_bytes": row.size_bytes, "latency_ms": row.latency_ms}
            for row in summary.trials
            if row.params is not None and row.size_bytes is not None and row.latency_ms is not None
        }
    measured: dict[str, Any] = {}
    for event in events:
        if isinstance(event, StageEvent) and event.stage == "profile":
            measured |= event.found
    if not measured:
        return {}
    students = {
        record.trial: TrialSpec.from_plain(record.spec).student.digest()
        for record in records
        if record.status == "completed"
    }
    return {
        trial: StudentCosts.from_plain(measured[digest]).numbers()
        for trial, digest in students.items()
        if digest in measured
    }
