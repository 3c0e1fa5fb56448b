"""`stillhouse validate --deep`: an experiment looked at as a run does before it trains anything."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from orchestrator.config.loading import LoadedExperiment
from orchestrator.pipeline.context import quiet_run
from orchestrator.pipeline.preflight import preflight
from orchestrator.terminal.console import Console


def validate_deep(loaded: LoadedExperiment, console: Console) -> dict[str, Any]:
    """Tell every note and problem, a line each: {"problems": [...], "notes": [...]}."""
    with quiet_run(loaded, console) as run:
        found = preflight(run)
    for note in found.notes:
        console.info(note)
    for problem in found.problems:
        console.info(f"problem: {problem}")
    return asdict(found)
