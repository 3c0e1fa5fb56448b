"""Whether MLflow still has the record of a finished run, found out without importing MLflow."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from orchestrator.config.paths import ARTIFACTS
from orchestrator.records.events import LedgerIdentity
from orchestrator.records.ledger import Ledger
from orchestrator.tracking.cursor import CursorFile, TrackingCursor
from trainables.errors import StillhouseError

_SQLITE: Final = "sqlite:///"
_LOOK_S: Final = 5.0
_STEPS: Final = 100_000
"""Of SQLite's machine, between two looks at the clock."""


_PRIMARY: Final = 0xFF
_DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_ERROR)


class Lack(NamedTuple):
    """What MLflow lacks of a ledger."""

    why: str
    from_the_start: bool
    """Whether only the whole ledger, written again, brings it back."""


def what_is_lacking(ledger: Ledger, *, uri: str, experiment: str, out: Path) -> Lack | None:
    """What MLflow lacks of the ledger of a run; none where nothing is known to be missing.

    Of a server it is known how far it was written, not what it has: `stillhouse record sync` writes all anew.

    Raises:
        StillhouseError: the SQLite file is damaged.
    """
    place = CursorFile(out, uri, experiment).load()
    identities = {event.ledger for event in ledger.events_of(LedgerIdentity)}
    if place is None or place.ledger not in identities:
        return Lack("it is not known what MLflow has of this run", from_the_start=False)
    waiting = len(ledger.events()) - place.cursor
    if waiting > 0:
        return Lack(f"MLflow lacks {waiting} events of the ledger", from_the_start=False)
    if place.check not in ("", ledger.check_at(place.cursor)):
        return Lack("MLflow has events that the ledger lost", from_the_start=False)
    return _lacking_in(Path(uri.removeprefix(_SQLITE)), place, out) if uri.startswith(_SQLITE) else None


def require_sound(database: Path) -> None:
    """Refuse a damaged SQLite file, which MLflow's server would try to open for minutes; takes 5 s at most.

    Raises:
        StillhouseError: it is damaged; says how it is made again.
    """
    deadline = time.monotonic() + _LOOK_S
    try:
        with closing(_opened(database)) as store:
            store.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
            found = store.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        if error.sqlite_errorcode & _PRIMARY not in _DAMAGE:
            return  # busy, or larger than can be looked at in this time: whoever opens it next says so
        raise damaged(database, str(error)) from error
    if found is not None and found[0] != "ok":
        raise damaged(database, str(found[0]))


def damaged(database: Path, why: str) -> StillhouseError:
    """The refusal of a damaged SQLite file."""
    return StillhouseError(
        f"MLflow's record {database} is damaged ({' '.join(why.split())}); move it away and run the "
        "experiment again, which writes it anew from the ledger and trains nothing twice"
    )


def _lacking_in(database: Path, place: TrackingCursor, out: Path) -> Lack | None:
    if not database.is_file():
        return Lack(f"{database} is gone", from_the_start=False)
    require_sound(database)
    try:
        with closing(_opened(database)) as store:
            found = dict(store.execute("SELECT run_uuid, artifact_uri FROM runs"))
    except sqlite3.OperationalError as error:  # an empty file has no tables
        return Lack(f"{database} has no runs ({error})", from_the_start=False)
    lost = {place.parent_run_id, *place.runs.values()} - found.keys()
    if lost:
        return Lack(f"{database} lacks {len(lost)} of the runs", from_the_start=False)
    files = urlsplit(str(found[place.parent_run_id]))
    here = out / ARTIFACTS / place.parent_run_id  # in a folder that was moved the other is its former place
    if files.scheme in ("", "file") and not Path(unquote(files.path)).exists() and not here.exists():
        return Lack(f"the files of MLflow's runs are gone from {unquote(files.path)}", from_the_start=True)
    return None


def _opened(database: Path) -> sqlite3.Connection:
    """The store, for reading."""
    return sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=_LOOK_S)
