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
    refused: list[Check] = []
    if tracking_uri is not None:
        try:
            # Any answer of a server will do, so a password is not needed, and is not shown.
            tracking_uri = without_secrets(absolute_tracking_uri(tracking_uri))
        except ValueError as error:
            refused = [Check("tracking", False, without_secrets(tracking_uri), str(error))]
            tracking_uri = None
    with connect(address) if address else nullcontext():
        found = [*checks(output=out, tracking_uri=tracking_uri), *refused]
    rows = [("ok" if check.ok else "PROBLEM", check.name, check.detail, check.next_step) for check in found]
    console.table("doctor", ("", "check", "found", "next step"), rows)
    console.result({"checks": [asdict(check) for check in found]})
    return all(check.ok for check in found)
