"""When which student was trained, how many at once, and what early stopping saved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from orchestrator.records.events import EpochEnded, Event
from orchestrator.records.ledger import TrialRecord
from orchestrator.reports.run_facts import RunFacts
from orchestrator.terminal.formatting import counted, duration
from trainables.config import Role

PAUSE_S: Final = 5.0
"""A student that reports nothing for longer than an epoch and so many seconds was not in a slot."""
OVERLAP_S: Final = 1.0
"""An epoch is told a little after it ended, when the slot may have begun with the next student."""


class Span(NamedTuple):
    """A student in a slot for a while; seconds since the ledger's first event."""

    record: TrialRecord
    start_s: float
    end_s: float
    epochs: int
    row: int
    """Of those students that were trained at once; the ledger does not tell which slot it was."""


class StageSpan(NamedTuple):
    """A stage of the run; the end of one that goes on is that of the ledger."""

    name: str
    start_s: float
    end_s: float


class Saved(NamedTuple):
    """What early stopping saved, against the full budget of all trials of the search."""

    trials: int
    """That were stopped."""
    epochs: int
    """That were not trained."""
    of_epochs: int
    """The full budget of those trials that ended."""
    seconds: float
    """Of a slot, at each trial's own speed."""


def kind_of(record: TrialRecord) -> str:
    """What the timeline calls a student: by its role, in the search by how it ended."""
    if record.role is Role.SEARCH:
        return record.status
    return "finalist" if record.role is Role.FINALIST else "control"


def training_spans(facts: RunFacts) -> list[Span]:
    """All students of the search, finalists and controls, in as many rows as were trained at once."""
    began = _began(facts.events)
    by_trial: dict[str, list[EpochEnded]] = {}
    for event in facts.events:
        if isinstance(event, EpochEnded):
            by_trial.setdefault(event.trial, []).append(event)
    stretches = [
        (record, start, end, epochs)
        for record in (*facts.records, *facts.repeated)
        for start, end, epochs in _stretches(by_trial.get(record.trial, []), record, began)
    ]
    return _in_rows(stretches)


def stage_spans(facts: RunFacts) -> list[StageSpan]:
    """The stages that took time, in their order."""
    began, spans = _began(facts.events), []
    open_since: dict[tuple[str, str], float] = {}
    for event in facts.stages:
        now, key = (event.time_ms - began) / 1000, (event.stage, event.key)
        if event.status == "started":
            open_since[key] = now
        elif key in open_since:
            spans.append(StageSpan(event.stage, open_since.pop(key), now))
    last = (facts.events[-1].time_ms - began) / 1000 if facts.events else 0.0
    spans += [StageSpan(stage, since, last) for (stage, _), since in open_since.items()]
    return sorted((span for span in spans if span.end_s > span.start_s), key=lambda span: span.start_s)


def saved_by_stopping(records: Sequence[TrialRecord]) -> Saved | None:
    """None where no trial was stopped."""
    ended = [r for r in records if r.status in ("pruned", "completed") and _budget(r)]
    pruned = [r for r in ended if r.status == "pruned" and r.epochs < _budget(r)]
    if not pruned:
        return None
    left = [(record, _budget(record) - record.epochs) for record in pruned]
    seconds = sum(epochs * record.seconds / max(record.epochs, 1) for record, epochs in left)
    return Saved(len(pruned), sum(epochs for _, epochs in left), sum(map(_budget, ended)), seconds)


def saved_text(records: Sequence[TrialRecord]) -> str:
    """The same in a sentence."""
    saved = saved_by_stopping(records)
    if saved is None:
        return "No trial of the search was stopped early."
    return (
        f"Early stopping ended {counted(saved.trials, 'trial')} before the last epoch: {saved.epochs:,} of "
        f"{saved.of_epochs:,} epochs ({100 * saved.epochs / saved.of_epochs:.0f} %) were not trained, which "
        f"is {duration(saved.seconds)} of a slot at each trial's own speed."
    )


def time_rows(spans: Sequence[Span]) -> list[tuple[str, str, str, str, str]]:
    """By kind: students, epochs, time in slots, and its share."""
    whole = sum(span.end_s - span.start_s for span in spans) or 1.0
    rows = []
    for kind in dict.fromkeys(kind_of(span.record) for span in spans):
        own = [span for span in spans if kind_of(span.record) == kind]
        seconds = sum(span.end_s - span.start_s for span in own)
        students = len({span.record.trial for span in own})
        epochs = sum(span.epochs for span in own)
        rows.append(
            (kind, f"{students:,}", f"{epochs:,}", duration(seconds), f"{100 * seconds / whole:.0f} %")
        )
    return rows


def _began(events: Sequence[Event]) -> int:
    return events[0].time_ms if events else 0


def _budget(record: TrialRecord) -> int:
    return int(record.spec.get("training", {}).get("epochs", 0))


def _stretches(
    events: Iterable[EpochEnded], record: TrialRecord, began: int
) -> list[tuple[float, float, int]]:
    """From when to when a student was in a slot, and how many epochs it finished there."""
    found: list[tuple[float, float, int]] = []
    known = (record.started_ms - began) / 1000
    for event in events:
        end = (event.time_ms - began) / 1000
        took = event.metrics.get("seconds")
        start = known if took is None else end - took
        if found and start - found[-1][1] <= PAUSE_S + (end - start):
            first, _, epochs = found[-1]
            found[-1] = (first, end, epochs + 1)
        else:
            found.append((start, end, 1))
        known = end
    return found


def _in_rows(stretches: Iterable[tuple[TrialRecord, float, float, int]]) -> list[Span]:
    """Each in the first row that is free when it begins."""
    free: list[float] = []
    spans = []
    for record, start, end, epochs in sorted(stretches, key=lambda stretch: stretch[1]):
        row = next((row for row, since in enumerate(free) if since <= start + OVERLAP_S), len(free))
        if row == len(free):
            free.append(end)
        free[row] = end
        spans.append(Span(record, start, end, epochs, row))
    return spans
