"""Reads a ledger as it grows: each look costs what was added since the last one."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.records.chain import Broken, Chain
from orchestrator.records.events import Event, read_event
from trainables.errors import StillhouseError
from trainables.foreign_files import foreign_file


class LedgerReader:
    """The events of a ledger that a run may be writing at this moment; the file is only read.

    Paths in the events stay as the file has them. A line that is not whole yet is read by a later look.
    """

    def __init__(self, path: Path) -> None:
        """Read `path` from its first line on; it need not exist yet."""
        self.path = path
        self._chain = Chain()
        self._offset = 0

    def read(self) -> list[Event]:
        """The events that were added since the last look, in their order.

        Raises:
            StillhouseError: the file cannot be read, a line is no event or not as it was written, or the file
                was replaced by a shorter one.
        """
        try:
            if not self.path.exists():
                return []
            with self.path.open("rb") as file:
                if file.seek(0, 2) < self._offset:
                    raise self._refused("it is shorter than it was a moment ago")
                file.seek(self._offset)
                added = file.read()
        except OSError as error:
            raise StillhouseError(f"cannot read the ledger {self.path}: {error}") from error
        whole = added[: added.rfind(b"\n") + 1]
        events = [self._event(line) for line in whole.splitlines(keepends=True)]
        self._offset += len(whole)
        return events

    @property
    def count(self) -> int:
        """How many events were read."""
        return self._chain.mark().events

    def _event(self, line: bytes) -> Event:
        number = self.count + 1
        with foreign_file(lambda why: self._refused(f"line {number} is no ledger event ({why})")):
            try:
                return read_event(json.loads(self._chain.follow(line)))
            except Broken as error:
                raise self._refused(f"line {number}: {error}") from error

    def _refused(self, why: str) -> StillhouseError:
        return StillhouseError(f"{self.path}: {why}; restore the file or move it away")
