"""What runs are created with: names, tags and parameters of students and of groups of seeds."""

from __future__ import annotations

from typing import Any, Final

from orchestrator.records.events import GroupAdded, TrialStarted
from orchestrator.tracking.changes import TrialStart
from orchestrator.tracking.names import (
    GROUP_KIND,
    TAG_CHARACTERS,
    mlflow_key,
    param_text,
    run_kind,
    run_name,
)
from trainables.config import Role

CHAMPION_MARK: Final = "★"
"""Before the name of the champion's run: the first column of MLflow's table is always in sight."""


def trial_start(event: TrialStarted, ordinal: int) -> TrialStart:
    """What the run of a student is created with; `ordinal` is its place in the ledger, from 1."""
    role = event.role
    values: dict[str, Any] = dict(event.parameters)
    if role is not Role.SEARCH:
        values["seed"] = event.spec["seed"]
    return TrialStart(
        name=run_name(event.trial, role, event.objective, ordinal),
        tags={
            "kind": run_kind(role),
            "trial_id": event.trial,
            "objective": event.objective,
            "search": event.search,
        },
        params={mlflow_key(name): param_text(value) for name, value in values.items()},
        time_ms=event.time_ms,
    )


def group_start(event: GroupAdded) -> TrialStart:
    """What the run above the seeds of a finalist or a control is created with."""
    tags = {
        "kind": GROUP_KIND,
        "role": run_kind(event.role),
        "trial_id": event.group,
        "objective": event.objective,
        "search": event.search,
        "latency_device": event.latency_device,
        "control": event.control,
    }
    return TrialStart(
        name=event.group,
        tags={name: value[:TAG_CHARACTERS] for name, value in tags.items() if value is not None},
        params={mlflow_key(name): param_text(value) for name, value in event.parameters.items()},
        time_ms=event.time_ms,
    )


def champion_tags(name: str, champion: bool) -> dict[str, str]:
    """The tags of a run that is, or is no more, the one to ship."""
    return {
        "champion": "champion" if champion else "",
        "mlflow.runName": f"{CHAMPION_MARK} {name}" if champion else name,
    }
