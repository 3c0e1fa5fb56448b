"""A large store made of a small one: the runs of its trials copied within the SQLite file, in seconds."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Final

_TABLES: Final = ("runs", "params", "tags", "metrics", "latest_metrics")
_ID: Final = "substr(run_uuid, 1, 24) || printf('%08x', :copy)"
"""A run's id has 32 hexadecimal digits: the last eight say which copy it is of."""
_CHANGED: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "runs": {"name": "replace(name, '★ ', '') || ' copy ' || :copy"},
        "tags": {
            "value": "CASE key WHEN 'trial_id' THEN value || '-' || :copy "
            "WHEN 'mlflow.runName' THEN replace(value, '★ ', '') || ' copy ' || :copy "
            "WHEN 'champion' THEN '' ELSE value END"
        },
        "metrics": {"value": "CASE key WHEN 'rank' THEN value + :copy * :ranks ELSE value END"},
        "latest_metrics": {"value": "CASE key WHEN 'rank' THEN value + :copy * :ranks ELSE value END"},
    }
)


def multiply(database: Path, *, copies: int, ranks: int) -> None:
    """Add so many copies of each trial's run, with what belongs to it, to a store that nobody writes into.

    The copies rank behind all others, in blocks of `ranks`; none is a champion. Models are not copied.
    """
    with closing(sqlite3.connect(database)) as store, store:
        store.execute(
            "CREATE TEMP TABLE originals AS SELECT run_uuid FROM tags WHERE key = 'kind' AND value = 'trial'"
        )
        for copy in range(1, copies + 1):
            for table in _TABLES:
                store.execute(_statement(store, table), {"copy": copy, "ranks": ranks})


def _statement(store: sqlite3.Connection, table: str) -> str:
    names = [str(row[1]) for row in store.execute(f"PRAGMA table_info({table})")]
    changed = {"run_uuid": _ID, **_CHANGED.get(table, {})}
    columns = ", ".join(f'"{name}"' for name in names)
    values = ", ".join(changed.get(name, f'"{name}"') for name in names)
    return (
        f"INSERT INTO {table} ({columns}) SELECT {values} FROM {table} "  # noqa: S608 (names of its own)
        "WHERE run_uuid IN (SELECT run_uuid FROM originals)"
    )
