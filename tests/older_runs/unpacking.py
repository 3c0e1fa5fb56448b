"""A finished run of an older version, put into a folder as if it had been made there.

`three_trials_0.1.0.tar.xz` was made by commit 7c96dbc in /tmp/stillhouse/fixture, with `stillhouse run
three_trials.yaml`: experiment, ledger, summary, cache, students, teacher, champion and MLflow's record. Left
out are the report (4.8 MB of plotly), Tune's folder, and locks.
"""

from __future__ import annotations

import sqlite3
import tarfile
from pathlib import Path
from typing import Final

ARCHIVE: Final = Path(__file__).parent / "three_trials_0.1.0.tar.xz"
MADE_IN: Final = "/tmp/stillhouse/fixture"  # noqa: S108  # where the archive's absolute paths point
_TEXTS: Final = ("ledger.jsonl", "summary.json", "mlflow.json")
_COLUMNS: Final = (
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("experiments", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def unpack_older_run(folder: Path) -> Path:
    """The experiment's file; its run is in `out/three_trials` beside it."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    out = folder / "out" / "three_trials"
    for name in _TEXTS:
        path = out / name
        path.write_text(path.read_text().replace(MADE_IN, str(folder)))
    store = sqlite3.connect(out / "mlflow.db")
    with store:
        for table, column in _COLUMNS:
            store.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (MADE_IN, str(folder)))  # noqa: S608
    store.close()
    return folder / "three_trials.yaml"
