"""How far a run is that is not over: which stage, how many trials, which one leads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from orchestrator.records.events import TrialStarted
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.selection import rank_trials
from orchestrator.reports.markup import tiles
from orchestrator.reports.run_facts import RunFacts
from orchestrator.terminal.formatting import counted, duration, percent, short_parameters

STATES = ("completed", "pruned", "failed", "running")


def state_of(facts: RunFacts) -> str:
    """That the run is not over, how far it is, and that there is no champion yet; in sentences."""
    told = ["This run is not over, and there is no champion yet."]
    if facts.events:
        last = datetime.fromtimestamp(facts.events[-1].time_ms / 1000, UTC)
        told.append(f"The page shows its ledger up to {last:%Y-%m-%d %H:%M:%S} UTC.")
    told.append(_stage(facts))
    told.append(trial_counts(facts.records, facts.trials))
    if facts.repeated:
        told.append(f"Finalists and controls, a student for each seed: {_states(facts.repeated)}.")
    if facts.records:
        told.append("All figures are of the selection split; those of one seed are easily lucky.")
    return " ".join(filter(None, told))


def trial_counts(records: Sequence[TrialRecord], budget: int | None = None) -> str:
    """How many trials there are, and how they ended."""
    count = counted(len(records), "trial")
    if budget is not None and budget > len(records):
        count = f"{len(records):,} of {counted(budget, 'trial')} started"
    return f"{count}: {_states(records) or 'none ended'}."


def leading_tiles(facts: RunFacts) -> str:
    """What is known so far, in figures."""
    found = []
    best = next(iter(rank_trials(facts.records)), None)
    if best is not None:
        values = short_parameters({k: v for k, v in best.parameters.items() if k != "objective"})
        found.append(
            (f"Best {facts.rank_by.label} so far", f"{percent(best.score)} %", "selection, one seed")
        )
        found.append(("Leading trial", best.objective, f"{best.trial}; {values}"))
    counts = Counter(record.status for record in facts.records)
    ended = sum(counts[state] for state in STATES if state != "running")
    budget = f"of {facts.trials:,}" if facts.trials else ""
    found.append(("Trials that ended", f"{ended:,}", f"{budget}; {counts['running']:,} in training"))
    if facts.events:
        seconds = (facts.events[-1].time_ms - facts.events[0].time_ms) / 1000
        found.append(("Since the start", duration(seconds), "up to the last event of the ledger"))
    return tiles(found)


def _states(records: Sequence[TrialRecord]) -> str:
    counts = Counter(record.status for record in records)
    return ", ".join(f"{counts[state]:,} {state}" for state in STATES if counts[state])


def _stage(facts: RunFacts) -> str:
    """The stage that the ledger was told of last."""
    if not facts.stages:
        return "No stage has begun."
    last = facts.stages[-1]
    if last.status == "started":
        return f"Stage {last.stage} is in progress."
    if last.status == "finished":
        return f"Stage {last.stage} is finished."
    return f"It stopped in stage {last.stage}: {last.reason or last.status}."


def later_students(facts: RunFacts) -> str:
    """That students started after the summary was written; empty where none did."""
    summary = facts.summary
    if summary is None or summary.ledger is None:
        return ""
    known = summary.ledger.events
    later = sum(isinstance(event, TrialStarted) for event in facts.events[known:])
    if not later:
        return ""
    return (
        f"{counted(later, 'student')} started since the champion was chosen, so a run goes on: what stands "
        "here is the result before it."
    )
