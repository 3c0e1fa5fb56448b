"""Whether a run could record to an address: the answer that run, `validate --deep` and doctor share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from mlflow import MlflowClient

from cluster.doctor import Check
from orchestrator.terminal.masking import without_secrets
from orchestrator.tracking.faults.errors import LET_IN, AccessDenied, StoreAway, WriteRefused, translated
from orchestrator.tracking.store import prepare_mlflow

_SQLITE: Final = "sqlite:///"
_NAME: Final = "tracking"


def tracking_check(uri: str) -> Check:
    """Ask a store what the recorder asks first; nothing is written, and no password is told.

    A server is asked through MLflow, so that user, password, token, certificates and proxies count as they
    do in a run. An SQLite file is looked at and not opened, since MLflow would make it.

    Args:
        uri: as `config.tracking_uri.absolute_tracking_uri` gives it, with its password.
    """
    if uri.startswith(_SQLITE):
        return _sqlite(Path(uri.removeprefix(_SQLITE)))
    place = without_secrets(uri)
    prepare_mlflow()
    try:
        with translated(remote=True):
            MlflowClient(uri, registry_uri=uri).search_experiments(max_results=1)
    except AccessDenied:
        return Check(_NAME, False, f"{place} does not let this user in", LET_IN)
    except (StoreAway, WriteRefused) as error:
        step = "start the MLflow server, or correct the tracking URI"
        return Check(_NAME, False, f"{place} does not answer: {error}", step)
    return Check(_NAME, True, f"{place} answers and lets this user in")


def _sqlite(path: Path) -> Check:
    place = path.absolute()
    while not place.exists():
        place = place.parent
    writable = os.access(place, os.W_OK)
    return Check(_NAME, writable, f"SQLite at {path}", "" if writable else f"make {place} writable")
