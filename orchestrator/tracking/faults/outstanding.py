"""What MLflow does not have, in numbers and in words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outstanding:
    """What MLflow does not have."""

    events: int
    """Ledger events that wait for MLflow."""
    refused: int
    """Writes that MLflow will never take; each was logged as a warning."""
    error: str | None
    """Why events wait, as far as MLflow said."""
    settled: bool
    """Whether the status of runs that an earlier process left is right."""
    files: int = 0
    """Files that wait for the artifact store, while MLflow has the rest."""

    def __bool__(self) -> bool:
        return self.events > 0 or not self.settled or self.files > 0

    def __str__(self) -> str:
        why = f": {self.error}" if self.error else ""
        if not self:
            return "MLflow has everything"
        what = "the status of some runs is"
        if self.events:
            what = f"{self.events} ledger events are"
        elif self.settled:
            what = f"{self.files} file{' is' if self.files == 1 else 's are'}"
        return f"{what} not in MLflow{why}; the next run writes them"
