"""What a summary tells of the teacher, and of several teachers each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.pipeline.context import Run
from orchestrator.records.costs import TEACHER, StudentCosts, member_name
from orchestrator.records.selection import Figures
from orchestrator.records.summary import MemberFigures, TeacherFigures
from trainables.config.metrics import RankBy
from trainables.training.train_teacher import TeacherFacts


def teacher_figures(
    run: Run,
    teacher: TeacherFacts | None,
    tested: Figures,
    costs: Mapping[str, StudentCosts],
    rank_by: RankBy,
) -> TeacherFigures | None:
    """Its figures on both splits and its latency; none without a teacher.

    `tested` and `costs` are by trial id, and of the teacher under its name; a ledger of an earlier version
    has no latency of it.
    """
    if teacher is None:
        return None
    return TeacherFigures(
        params=teacher.params,
        selection_accuracy=teacher.selection_accuracy,
        **_tested(tested.get(TEACHER, {}), rank_by),
        **_latency(costs.get(TEACHER)),
        members=tuple(_members(run, teacher, tested, costs)),
    )


def _tested(found: Mapping[str, float], rank_by: RankBy) -> dict[str, Any]:
    return {
        "test_accuracy": found.get("accuracy"),
        "test_balanced_accuracy": found.get("balanced_accuracy"),
        "test_ranked": found.get(rank_by) if rank_by.is_of_features else None,
    }


def _latency(costs: StudentCosts | None) -> dict[str, Any]:
    names = ("latency_ms", "latency_p95_ms", "latency_device")
    return {} if costs is None else {name: getattr(costs, name) for name in names}


def _members(
    run: Run, teacher: TeacherFacts, tested: Figures, costs: Mapping[str, StudentCosts]
) -> Iterator[MemberFigures]:
    """Of several teachers, each."""
    for number, (share, facts) in enumerate(zip(run.shares, teacher.members, strict=False), start=1):
        own, measured = tested.get(member_name(number), {}), costs.get(member_name(number))
        yield MemberFigures(
            share=share,
            params=facts.params,
            selection_accuracy=facts.selection_accuracy,
            test_accuracy=own.get("accuracy"),
            latency_ms=None if measured is None else measured.latency_ms,
        )
