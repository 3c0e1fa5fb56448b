"""The controls and finalists as all charts show them; while a run goes on, those of its trials that lead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from orchestrator.records.ledger import TrialRecord
from orchestrator.records.selection import group_of, hyper_parameters_key, rank_trials
from orchestrator.records.student_figures import Students
from orchestrator.records.summary import is_champion
from orchestrator.records.tables.students_table import named_controls
from orchestrator.reports.charts.chart import Key
from orchestrator.reports.charts.palette import CHAMPION_MARKER, Look, control_look, student_look
from orchestrator.reports.run_facts import RunFacts
from trainables.config import Role

LEADERS = 5
"""Trials whose curves are shown while there is no finalist."""


class ChartGroup(NamedTuple):
    """One control, finalist or leading trial, over its seeds."""

    name: str
    look: Look
    trials: Sequence[str]
    mean: float | None = None
    """What ranks it, on the selection split; none while no seed is completed."""
    std: float | None = None
    costs: Mapping[str, float] = MappingProxyType({})
    """`params` and `latency_ms` where they are known."""
    is_champion: bool = False

    @property
    def key(self) -> Key:
        """Its entry in a legend."""
        return Key(self.name, self.look)


def groups_of(facts: RunFacts) -> list[ChartGroup]:
    """The controls, then each finalist; before there are any, the trials that lead the search."""
    if facts.summary is not None:
        return _of_summary(facts)
    return _in_training(facts) if facts.repeated else _leaders(facts)


def teachers_selection(facts: RunFacts) -> float | None:
    """What the teacher reaches on the selection split; none where its features would have to be judged."""
    if facts.rank_by.is_of_features:
        return None
    if facts.summary is not None:
        return facts.summary.teacher.selection_accuracy if facts.summary.teacher else None
    found = [e.found for e in facts.stages if e.stage == "teacher" and e.status == "finished"]
    reached = found[-1].get("selection_accuracy") if found else None
    return None if reached is None else float(reached)


def _of_summary(facts: RunFacts) -> list[ChartGroup]:
    summary = facts.summary
    if summary is None:
        return []
    named: list[tuple[str, Look, Students, bool]] = [
        (f"{name} (ce)", control_look(index), control, False)
        for index, (name, control) in enumerate(named_controls(summary))
    ]
    for index, finalist in enumerate(summary.finalists):
        look, champion = student_look(index), is_champion(summary, finalist)
        name = f"finalist {index + 1} ({finalist.objective}){', champion' if champion else ''}"
        own = look._replace(marker=CHAMPION_MARKER) if champion else look
        named.append((name, own, finalist, champion))
    return [
        ChartGroup(
            name,
            look,
            students.trials,
            students.selection_mean,
            students.selection_std,
            {"params": float(students.params), "latency_ms": students.latency_ms},
            champion,
        )
        for name, look, students, champion in named
    ]


def _in_training(facts: RunFacts) -> list[ChartGroup]:
    """Finalists and controls of which some seeds may still be trained."""
    members: dict[tuple[bool, str], list[TrialRecord]] = {}
    for record in facts.repeated:
        known = record.repeats or hyper_parameters_key(record)
        members.setdefault((record.role is Role.FINALIST, known), []).append(record)
    groups = []
    counts = {True: 0, False: 0}
    for (is_finalist, _), records in sorted(members.items(), key=lambda item: item[0][0]):
        number = counts[is_finalist]
        counts[is_finalist] += 1
        look = student_look(number) if is_finalist else control_look(number)
        name = f"{'finalist' if is_finalist else 'control'} {number + 1} ({records[0].objective})"
        done = [r for r in records if r.status == "completed" and r.score is not None]
        group = group_of(done) if done else None
        own = next(
            (
                facts.figures[r.repeats]
                for r in records
                if r.repeats is not None and r.repeats in facts.figures
            ),
            {},
        )
        groups.append(
            ChartGroup(
                name,
                look,
                [record.trial for record in records],
                group.mean if group else None,
                group.std if group else None,
                own if is_finalist else {},
            )
        )
    return groups


def _leaders(facts: RunFacts) -> list[ChartGroup]:
    return [
        ChartGroup(
            f"{number + 1}. {record.objective} ({record.trial})",
            student_look(number),
            [record.trial],
            record.score,
            None,
            facts.figures.get(record.trial, {}),
        )
        for number, record in enumerate(rank_trials(facts.records)[:LEADERS])
    ]
