"""A finished run of an older version, in another place than where it was made.

`three_trials_0.1.0.tar.xz` was made by commit 7c96dbc in /tmp/stillhouse/fixture, with `stillhouse run
three_trials.yaml`: experiment, ledger, summary, cache, students, teacher, champion and MLflow's record, with
absolute paths, as that version wrote them. Left out are the report (4.8 MB of plotly), Tune's folder, locks.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Final

ARCHIVE: Final = Path(__file__).parent / "three_trials_0.1.0.tar.xz"


def unpack_older_run(folder: Path) -> Path:
    """The experiment's file; its run is in `out/three_trials` beside it."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "three_trials.yaml"
