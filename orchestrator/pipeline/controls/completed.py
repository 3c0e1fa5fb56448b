"""Which finalists and controls were completed; what failed is told, and has no part in what follows."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.pipeline.context import Run
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.relations import may_control
from trainables.config import Role
from trainables.errors import StillhouseError


def completed_of(run: Run, trained: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Those that were completed; the others are told with their reasons."""
    for record in trained:
        if record.status != "completed":
            run.console.info(f"{record.trial} has no part in what follows; it failed: {record.reason}")
    return [record for record in trained if record.status == "completed"]


def finalists_and_controls(
    run: Run, trained: Sequence[TrialRecord]
) -> tuple[list[TrialRecord], list[TrialRecord]]:
    """Finalists and controls that were completed; every finalist has a control.

    Raises:
        StillhouseError: all finalists failed, or all controls of one.
    """
    completed = completed_of(run, trained)
    finalists = [record for record in completed if record.role is Role.FINALIST]
    if not finalists:
        failed = [record for record in trained if record.role is Role.FINALIST]
        raise StillhouseError(f"the finalists failed with every seed: {_reasons(failed)}")
    for finalist in finalists:
        if not any(may_control(record, finalist) for record in completed):
            failed = [record for record in trained if may_control(record, finalist)]
            raise StillhouseError(
                f"the controls of finalist {finalist.trial} failed with every seed: {_reasons(failed)}"
            )
    return finalists, [record for record in completed if record.role is Role.BASELINE]


def _reasons(failed: Sequence[TrialRecord]) -> str:
    return "; ".join(dict.fromkeys(str(record.reason) for record in failed))
