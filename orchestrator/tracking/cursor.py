"""How far MLflow has followed the ledger: `<out>/mlflow.json`, one entry for each store and experiment."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Final

from orchestrator.config.loading import LoadedExperiment
from orchestrator.config.paths import experiment_name, out_folder, tracking_uri
from orchestrator.records.places import relative
from orchestrator.terminal.masking import without_secrets
from trainables.config import Config
from trainables.errors import ConfigError, StillhouseError
from trainables.foreign_files import Unreadable, foreign_file
from trainables.local_files import replace_text

_log = logging.getLogger(__name__)
_SCHEMA: Final = 2
_ABSOLUTE: Final = 1
"""The schema in which stores in the folder went by their absolute address."""
_SQLITE: Final = "sqlite:///"


class TrackingCursor(Config):
    """Where the projection into one MLflow experiment stands, and which run is whose."""

    ledger: str
    experiment_id: str
    parent_run_id: str
    cursor: int
    """Number of ledger events that MLflow has."""
    check: str = ""
    """The ledger's checksum over these events; empty from an earlier version."""
    runs: dict[str, str] = {}
    """Run id of each trial."""


class CursorFile:
    """Keeps one `TrackingCursor`; losing the file costs a replay, which changes nothing in MLflow."""

    def __init__(self, folder: Path, tracking_uri: str, experiment_name: str) -> None:
        self._path = folder / "mlflow.json"
        self._place = relative(without_secrets(tracking_uri), folder.absolute())
        self._is_inside = self._place != without_secrets(tracking_uri)
        self._experiment = experiment_name
        self._key = f"{self._place} {experiment_name}"

    def load(self) -> TrackingCursor | None:
        """What was saved for this store and experiment, if it can be read."""
        entry = self._stores().get(self._key)
        if entry is None:
            return None
        try:
            with foreign_file(Unreadable):
                return TrackingCursor.from_plain(entry)
        except Unreadable as error:
            _log.warning("%s is not usable, MLflow is brought up to date anew: %s", self._path, error)
            return None

    def forget(self) -> None:
        """Drop the entry of this store and experiment, so that the ledger is written from its first event on.

        Raises:
            StillhouseError: the file cannot be written.
        """
        stores = {key: entry for key, entry in self._stores().items() if key != self._key}
        replace_text(self._path, json.dumps({"schema": _SCHEMA, "stores": stores}, indent=1))

    def save(self, cursor: TrackingCursor) -> None:
        """Replace the entry of this store and experiment in one step; a failure is logged."""
        document = {"schema": _SCHEMA, "stores": {**self._stores(), self._key: cursor.plain()}}
        try:
            replace_text(self._path, json.dumps(document, indent=1))
        except StillhouseError as error:
            _log.warning("the next run brings MLflow up to date anew: %s", error)

    def _named_now(self, key: str) -> str:
        """The key of an earlier version's entry: a store in the folder goes by its place there."""
        end = f"/{self._place.removeprefix(_SQLITE)} {self._experiment}"
        is_ours = self._is_inside and key.startswith(f"{_SQLITE}/") and key.endswith(end)
        return self._key if is_ours else key

    def _stores(self) -> dict[str, Any]:
        if not self._path.exists():
            return {}
        try:
            with foreign_file(Unreadable):
                document = json.loads(self._path.read_bytes())
                schema = document.get("schema")
                stores = dict(document["stores"]) if schema in (_ABSOLUTE, _SCHEMA) else {}
        except Unreadable as error:
            _log.warning("%s is damaged, MLflow is brought up to date anew: %s", self._path, error)
            return {}
        # An earlier version kept secret parameters of an address.
        stores = {without_secrets(key): entry for key, entry in stores.items()}
        if schema == _ABSOLUTE:
            return {self._named_now(key): entry for key, entry in stores.items()}
        return stores


def experiment_id(loaded: LoadedExperiment) -> str:
    """The id of the MLflow experiment of a run that has begun, finished or not.

    Raises:
        ConfigError: no run of this experiment has been recorded from this folder.
    """
    out = out_folder(loaded)
    progress = CursorFile(out, tracking_uri(loaded), experiment_name(loaded)).load()
    if progress is None:
        raise ConfigError(
            f"{out} holds no record of {loaded.config.name}; run the experiment first, or give its --out"
        )
    return progress.experiment_id
