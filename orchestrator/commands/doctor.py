"""`stillhouse doctor`: what a machine or a cluster lacks for a run."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict

from cluster.doctor import Check, checks
from cluster.session import connect
from orchestrator.config.tracking_uri import absolute_tracking_uri
from orchestrator.terminal.console import Console
from orchestrator.terminal.masking import without_secrets


def examine(address: str | None, out: str, tracking_uri: str | None, *, json_only: bool) -> bool:
    """Print what was found; whether all of it is well."""
    console = Console(json_only=json_only)
    with connect(address) if address else nullcontext():
        found = checks(output=out)
    if tracking_uri is not None:
        found.append(_tracking(tracking_uri))
    rows = [("ok" if check.ok else "PROBLEM", check.name, check.detail, check.next_step) for check in found]
    console.table("doctor", ("", "check", "found", "next step"), rows)
    console.result({"checks": [asdict(check) for check in found]})
    return all(check.ok for check in found)


def _tracking(uri: str) -> Check:
    """What a run would find at an address."""
    try:
        absolute = absolute_tracking_uri(uri)
    except ValueError as error:
        return Check("tracking", False, without_secrets(uri), str(error))
    # Late: MLflow takes seconds to import, and no other check needs it.
    from orchestrator.tracking.faults.access import tracking_check

    return tracking_check(absolute)
