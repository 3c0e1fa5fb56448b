"""Checksums that chain a ledger's lines: each covers its own line and, through the one before, all above.

A line begins with its checksum: `{"check":"3f2a…","seq":7, …}`. It guards against accidents and edits by
hand; whoever computes the chain anew can still write what they like. Earlier versions wrote none; where they
began a ledger, the first line with a checksum covers those above it too.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from trainables.config import Config
from trainables.errors import StillhouseError
from trainables.foreign_files import Unreadable, foreign_file

_DIGITS: Final = 16
_HEAD: Final = b'{"check":"'
_REST: Final = len(_HEAD) + _DIGITS + len(b'",')
_EARLIER: Final = b'{"seq":'
_NUMBER: Final = re.compile(rb'\{"seq": ?(\d{1,18})[,}]')


class LedgerMark(Config):
    """How far a ledger was, so that one which lost its end is known."""

    events: int = Field(ge=0, description="its lines")
    check: str = Field(description="the checksum of the last of them")
    unchecked: int = Field(0, ge=0, description="lines of an earlier version, which have no checksums")

    @property
    def caveat(self) -> str | None:
        """What the figures that come from it may suffer from, in a sentence; none where all is checked."""
        if not self.unchecked:
            return None
        lines = "line is" if self.unchecked == 1 else f"{self.unchecked} lines are"
        return (
            f"The ledger's first {lines} of an earlier version, which wrote no checksums: whether it was "
            "edited there cannot be told."
        )


class Broken(StillhouseError):
    """Why a line cannot follow those above it."""


class Chain:
    """Follows the lines of one ledger from its first one on."""

    def __init__(self) -> None:
        self._checks: list[str] = []
        self._unchecked = 0

    def mark(self) -> LedgerMark:
        """How far it is."""
        return LedgerMark(events=len(self._checks), check=self.check_at(None), unchecked=self._unchecked)

    def check_at(self, events: int | None) -> str:
        """The checksum over the first lines, or over all; empty for none, and where there are fewer."""
        checks = self._checks if events is None else self._checks[max(0, events - 1) : events]
        return checks[-1] if checks else ""

    def sealed(self, body: bytes) -> bytes:
        """The line for a JSON object that comes next."""
        return _HEAD + self._check_of(body).encode() + b'",' + body[1:] + b"\n"

    def follow(self, line: bytes) -> bytes:
        """The JSON object of the next line, a complete one.

        Raises:
            Broken: it is not the line that was written here.
        """
        body = b"{" + line[_REST:-1]
        if line.startswith(_HEAD):
            check = self._check_of(body)
            if line[len(_HEAD) : _REST] != f'{check}",'.encode():
                raise Broken(self._why(body))
        else:
            body, check = line[:-1], self._check_of(line[:-1])
            self._require_earlier(body)
            self._unchecked += 1
        self._checks.append(check)
        return body

    def is_next_but_for_its_end(self, tail: bytes) -> bool:
        """Whether what stands after the last line feed is a whole line whose own line feed was changed.

        A crash leaves a part of a line, never more than one.
        """
        body = b"{" + tail[_REST:-1]
        return tail.startswith(_HEAD) and tail[len(_HEAD) : _REST] == f'{self._check_of(body)}",'.encode()

    def require(self, mark: LedgerMark) -> None:
        """Refuse a ledger that has less than it had, or something else.

        Raises:
            Broken: it lost its end, or was made anew.
        """
        if len(self._checks) < mark.events:
            raise Broken(
                f"it has {len(self._checks)} lines of the {mark.events} that it had when summary.json was "
                "written: lines at its end are missing"
            )
        if self.check_at(mark.events) != mark.check:
            raise Broken(f"its first {mark.events} lines are not those that summary.json was made from")

    def _check_of(self, body: bytes) -> str:
        return hashlib.blake2b(self.check_at(None).encode() + body, digest_size=_DIGITS // 2).hexdigest()

    def _require_earlier(self, body: bytes) -> None:
        if len(self._checks) > self._unchecked:
            raise Broken("it has no checksum, and lines above it have: it was changed or put there")
        if not body.startswith(_EARLIER):
            raise Broken("not a ledger event (it begins neither with a checksum nor with its number)")
        found = _NUMBER.match(body)
        if found is not None and int(found[1]) != len(self._checks):
            raise Broken(self._why(body))

    def _why(self, body: bytes) -> str:
        found, place = _NUMBER.match(body), len(self._checks)
        if found is not None and int(found[1]) != place:
            return f"it is event {int(found[1])} where {place} belongs: lines were removed, put in or moved"
        if place and place == self._unchecked:
            return (
                f"its checksum does not fit: it was changed, or one of the {place} lines above it, which an "
                "earlier version wrote without checksums"
            )
        return "its checksum does not fit: it was changed after it was written"


def mark_in(summary: Path) -> LedgerMark | None:
    """How far the ledger was when a summary was written; none where no summary can be read."""
    try:
        with foreign_file(Unreadable):
            document: dict[str, Any] = json.loads(summary.read_bytes())
            return LedgerMark.from_plain(document["ledger"])
    except Unreadable:  # whoever reads the summary itself says what is wrong with it
        return None
