"""What goes to MLflow beside the students' curves: costs, test figures, gains, ranks, groups of seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from orchestrator.config.constraints import Condition
from orchestrator.pipeline.controls.figures import Gain, gains_at_equal_compute, gains_over_controls
from orchestrator.pipeline.results import RunResults
from orchestrator.records.costs import TEACHER, numbers_of
from orchestrator.records.events import FiguresAdded, GroupAdded
from orchestrator.records.ledger import Ledger, TrialRecord
from orchestrator.records.picking.choice import Candidates
from orchestrator.records.picking.standings import Standing, standings
from orchestrator.records.student_figures import Finalist, Students
from orchestrator.tracking.names import SHORT
from orchestrator.tracking.recorder import MlflowRecorder
from trainables.config import Role
from trainables.config.metrics import RankBy

_COSTS: Final = ("params", "size_bytes", "latency_ms", "latency_p95_ms")


class _Facts(NamedTuple):
    """What MLflow is told of one student; equal facts are told once."""

    figures: Mapping[str, float]
    latency_device: str | None = None
    control: str | None = None
    same_compute_control: str | None = None
    champion: bool | None = None


def record_figures(
    results: RunResults,
    finalists: Sequence[Finalist],
    constraints: Sequence[Condition],
    recorder: MlflowRecorder,
    ledger: Ledger,
    shipped: Mapping[str, float],
) -> None:
    """Record what is not in the ledger yet: figures of students and of groups, and the champion's.

    `shipped` are those of the champion's exported files.

    Side effects: events in the ledger, which the recorder brings to MLflow.
    """
    known = {event.trial: _facts_of(event) for event in ledger.events_of(FiguresAdded)}
    costs = numbers_of(results.costs)
    candidates = Candidates(results.records, results.finalists, results.controls, costs)
    placed = standings(candidates, results.champion.record, constraints)
    gains = gains_over_controls(results.finalists, results.compared, results.tests)
    marked = {trial for trial, facts in known.items() if facts.champion is not None}
    for trial, facts in _of_students(results, placed, gains, marked, shipped):
        if known.get(trial) != facts:
            recorder.record_figures(
                trial,
                facts.figures,
                latency_device=facts.latency_device,
                controls=(facts.control, facts.same_compute_control),
                champion=facts.champion,
            )
    figures = _of_champion(results, gains) | _of_teacher(results)
    figures |= {f"champion_{name}": value for name, value in shipped.items()}
    if known.get(None, _Facts({})).figures != figures:
        recorder.record_figures(None, figures)
    _record_groups(results, finalists, placed, ledger)


def _facts_of(event: FiguresAdded) -> _Facts:
    controls = event.control, event.same_compute_control
    return _Facts(event.figures, event.latency_device, *controls, event.champion)


def _of_students(
    results: RunResults,
    placed: Mapping[str, Standing],
    gains: Mapping[str, Gain],
    marked: set[str | None],
    shipped: Mapping[str, float],
) -> Iterator[tuple[str, _Facts]]:
    """By trial id; `marked` are those that were said to be the champion, or not to be."""
    longer = gains_at_equal_compute(results.finalists, results.compared, results.tests)
    students = [r for r in results.records if r.status == "completed"]
    for record in [*students, *results.finalists, *results.controls]:
        trial, costs = record.trial, results.costs[record.trial]
        figures = costs.numbers()
        if trial in results.tests:
            figures |= {f"test_{SHORT.get(n, n)}": value for n, value in results.tested[trial].items()}
        if trial in placed:
            figures |= placed[trial].figures()
        control, gain = gains.get(trial, (None, None))
        if gain is not None:
            figures["gain_over_control"] = gain
        other, gain = longer.get(trial, (None, None))
        if gain is not None:
            figures["gain_same_compute"] = gain
        is_it = trial == results.champion.record.trial
        figures |= shipped if is_it else {}
        champion = is_it if is_it or trial in marked else None
        yield trial, _Facts(figures, costs.latency_device, control, other, champion)


def _of_champion(results: RunResults, gains: Mapping[str, Gain]) -> dict[str, float]:
    """What the parent run shows of the champion: means over its seeds, its gain and its costs."""
    own = [gains[r.trial][1] for r in results.champion.group.records if r.trial in gains]
    costs, means = results.costs[results.champion.record.trial], results.champion_metrics()
    figure = results.rank_by
    short = SHORT[figure]
    figures = {
        short: means[f"selection_{figure}_mean"],
        f"test_{short}": means[f"test_{figure}_mean"],
    }
    if own:
        figures["gain_over_control"] = statistics.fmean(own)
    figures |= costs.numbers()
    return {f"champion_{name}": value for name, value in figures.items()}


def _of_teacher(results: RunResults) -> dict[str, float]:
    """What the parent run shows of the teacher beside what its stage told: its test figures and costs."""
    tested = results.tested.get(TEACHER, {})
    figures = {f"teacher_test_{SHORT.get(name, name)}": value for name, value in tested.items()}
    costs = results.costs.get(TEACHER)
    if costs is not None:
        figures |= {f"teacher_{name}": value for name, value in costs.numbers().items()}
    return figures


def _record_groups(
    results: RunResults, finalists: Sequence[Finalist], placed: Mapping[str, Standing], ledger: Ledger
) -> None:
    """One event for each finalist and each control, where the ledger has not the same already."""
    records = {record.trial: record for record in results.compared}
    known = {event.group: event for event in ledger.events_of(GroupAdded)}
    best_first = sorted(finalists, key=lambda finalist: _best(finalist, placed).rank)
    groups: dict[str, GroupAdded] = {}
    for place, finalist in enumerate(best_first, start=1):
        extra = {**_best(finalist, placed).figures(), "rank": place, **_gains(finalist)}
        group = _group(
            finalist,
            results.rank_by,
            records,
            figures=extra,
            control=_name(finalist.control, records),
            champion=results.champion.record.trial in finalist.trials,
        )
        groups[group.group] = group
    for students in [each for finalist in best_first for each in _controls(finalist)]:
        group = _group(students, results.rank_by, records)
        groups.setdefault(group.group, group)
    for name, group in groups.items():
        if name not in known or _content(known[name]) != _content(group):
            ledger.append(group)


def _content(event: GroupAdded) -> dict[str, Any]:
    return event.model_dump(exclude={"seq", "time_ms"})


def _best(finalist: Finalist, placed: Mapping[str, Standing]) -> Standing:
    """Of its seed that ranks first."""
    return min(placed[trial] for trial in finalist.trials)


def _controls(finalist: Finalist) -> list[Students]:
    longer = [] if finalist.same_compute is None else [finalist.same_compute]
    return [finalist.control, *(each.control for each in (*finalist.beside, *longer))]


def _name(students: Students, records: Mapping[str, TrialRecord]) -> str:
    record = records[students.trials[0]]
    return f"{record.repeats or record.trial}-seeds"


def _gains(finalist: Finalist) -> dict[str, float]:
    gain = finalist.test_gain
    found = {"gain_over_control": gain.mean, "gain_low": gain.low, "gain_high": gain.high}
    return {name: value for name, value in found.items() if value is not None}


def _group(
    students: Students,
    by: RankBy,
    records: Mapping[str, TrialRecord],
    *,
    figures: Mapping[str, float] | None = None,
    control: str | None = None,
    champion: bool = False,
) -> GroupAdded:
    """What is claimed of seeds together; `figures` are those that finalists alone have."""
    record, short = records[students.trials[0]], SHORT[by]
    found: dict[str, Any] = {
        short: students.selection_mean,
        f"{short}_std": students.selection_std,
        "seeds": len(students.seeds),
        f"test_{short}": students.test_mean,
        f"test_{short}_std": students.test_std,
        "test_nll": students.test_nll,
        "test_ece": students.test_ece,
        "test_agree": students.test_agreement,
        **{name: getattr(students, name) for name in _COSTS},
        **(figures or {}),
    }
    return GroupAdded(
        group=_name(students, records),
        role=Role.BASELINE if record.role is Role.BASELINE else Role.FINALIST,
        search=record.search,
        objective=students.objective,
        parameters=record.parameters,
        trials=students.trials,
        figures={name: value for name, value in found.items() if value is not None},
        latency_device=students.latency_device,
        control=control,
        champion=champion,
    )
