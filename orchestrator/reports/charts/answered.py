"""Teacher, control and champion as the report's sections about single answers show them."""

from __future__ import annotations

from typing import NamedTuple

from orchestrator.records.summary import champions_group
from orchestrator.reports.charts.groups import groups_of
from orchestrator.reports.charts.palette import TEACHER, Look, control_look, student_look
from orchestrator.reports.run_facts import RunFacts
from trainables.evaluation.answers_file import NetworkAnswers

CHAMPION = "champion"


class Answered(NamedTuple):
    """One network, and what it answered to the test split."""

    name: str
    look: Look
    answers: NetworkAnswers


def answered(facts: RunFacts) -> list[Answered]:
    """The teacher, the control with the champion's seed, the champion: those whose answers are kept."""
    kept = facts.answers
    if kept.champion is None:
        return []
    found = []
    if kept.champion.teacher is not None:
        found.append(Answered("teacher", TEACHER, kept.champion.teacher))
    if kept.control is not None:
        look = _look(facts, kept.control_trial, control_look(0))
        found.append(Answered("control", look, kept.control.student))
    own = facts.summary.champion.trial_id if facts.summary else None
    found.append(Answered(CHAMPION, _look(facts, own, student_look(0)), kept.champion.student))
    return found


def who_answered(facts: RunFacts) -> str:
    """Which students these are, in a sentence."""
    summary, kept = facts.summary, facts.answers
    if summary is None or kept.champion is None:
        return ""
    group, trial = champions_group(summary), summary.champion.trial_id
    seed = group.seeds[group.trials.index(trial)]
    control = f", and the control {kept.control_trial}" if kept.control_trial else ""
    return (
        f"One student each, of the seed that is exported ({seed}): the champion {trial}{control}; "
        "the table of students has means over all seeds."
    )


def _look(facts: RunFacts, trial: str | None, other: Look) -> Look:
    return next((group.look for group in groups_of(facts) if trial in group.trials), other)
