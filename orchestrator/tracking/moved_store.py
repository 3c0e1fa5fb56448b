"""A record that was moved or copied with its output folder: MLflow's addresses of artifacts are absolute."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from orchestrator.config.loading import LoadedExperiment
from orchestrator.config.paths import ARTIFACTS, artifact_folder, experiment_name, out_folder, tracking_uri
from orchestrator.tracking.kept_record import damaged, require_sound
from trainables.errors import ConfigError, StillhouseError

_SQLITE: Final = "sqlite:///"
_LEDGER: Final = "ledger.jsonl"
_COLUMNS: Final = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
_WAIT_S: Final = 30.0


def tell_of_move(loaded: LoadedExperiment, tell: Callable[[str], None]) -> None:
    """Have the record of an experiment follow its output folder, and say so where it was elsewhere.

    Raises:
        StillhouseError: as for `follow_folder`.
    """
    out = out_folder(loaded)
    former = follow_folder(tracking_uri(loaded), experiment_name(loaded), out)
    if former is not None:
        tell(
            f"{out} was moved or copied from {former.parent}: MLflow's record in it names its files here "
            "from now on"
        )


def follow_folder(uri: str, experiment: str, out: Path) -> Path | None:
    """Have the record in an output folder keep its artifacts there; where it kept them, if it was elsewhere.

    The addresses of all artifacts below that other place are rewritten in one transaction, those of other
    experiments and of object stores stay. Nothing is done to a server, or to a store outside the folder.

    Raises:
        ConfigError: a store outside the folder keeps this experiment's artifacts in another output folder, in
            a place that is gone, or beside the store that it is a copy of.
        StillhouseError: the store cannot be written, or is damaged.
    """
    database = Path(uri.removeprefix(_SQLITE))
    if not uri.startswith(_SQLITE) or not database.is_file():
        return None
    require_sound(database)
    wanted = artifact_folder(uri, out)
    try:
        with closing(sqlite3.connect(database, timeout=_WAIT_S)) as store:
            found = _location(store, experiment)
            place = None if found is None else _path(found)
            if found is None or place is None or place == wanted or _is_same(place, wanted):
                return None
            if database.is_relative_to(out):
                with store:
                    _rewrite(store, found, wanted.as_uri())
                return place
    except sqlite3.Error as error:
        if not isinstance(error, sqlite3.OperationalError):
            raise damaged(database, str(error)) from error
        raise StillhouseError(
            f"cannot bring {database} along: {error}; free it or space, run again"
        ) from error
    foreign = None if place == out / ARTIFACTS else _why_foreign(place, database, out)
    if foreign is not None:
        raise ConfigError(
            f"MLflow's experiment {experiment} in {database} keeps its files in {place}, which {foreign}; "
            "this run does not write there: give record.experiment_name, or a store of its own in "
            "record.tracking_uri"
        )
    return None


def _why_foreign(place: Path, database: Path, out: Path) -> str | None:
    """Why a store outside the output folder must not keep files where it did; none if it may."""
    if not place.exists():
        return "is not there"
    if (place.parent / _LEDGER).exists() and not _is_same(place.parent, out):
        return "is in the output folder of another run"
    beside = place.parent / database.name
    return "belongs to a store of which this one is a copy" if _differ(beside, database) else None


def _location(store: sqlite3.Connection, experiment: str) -> str | None:
    if "name" not in _columns(store, "experiments"):  # no store yet
        return None
    query = "SELECT artifact_location FROM experiments WHERE name = ?"
    row = store.execute(query, (experiment,)).fetchone()
    return None if row is None else str(row[0]).rstrip("/")


def _path(location: str) -> Path | None:
    """The folder of artifacts that a run made, and none for what somebody else chose."""
    parts = urlsplit(location)
    path = Path(unquote(parts.path))
    return path if parts.scheme in ("", "file") and path.name == ARTIFACTS else None


def _is_same(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same folder, as through a link."""
    return one.exists() and other.exists() and one.samefile(other)


def _differ(one: Path, other: Path) -> bool:
    return one.exists() and not one.samefile(other)


def _rewrite(store: sqlite3.Connection, old: str, new: str) -> None:
    for table, column in _COLUMNS:
        if column in _columns(store, table):
            store.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608 (names from above)
                f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
            )


def _columns(store: sqlite3.Connection, table: str) -> set[str]:
    return {str(row[1]) for row in store.execute(f"PRAGMA table_info({table})")}
