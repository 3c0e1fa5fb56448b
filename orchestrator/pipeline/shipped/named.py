"""Which exported student a text on the command line names: a file, a champion's folder, or one in MLflow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from orchestrator.config.loading import load_experiment
from orchestrator.config.overrides import Overrides
from orchestrator.config.paths import CHAMPION_FOLDER, REGISTERED, champion_place, out_folder
from orchestrator.config.tracking_uri import absolute_tracking_uri, default_tracking_uri
from trainables.errors import ConfigError
from trainables.export.model_card import CARD_FILE
from trainables.export.opening import OpenedStudent, exported_file, open_student
from trainables.local_files import expanded, node_scratch

_STORE: Final = "mlflow.db"
_RUNS: Final = "out"
"""Where runs write by default."""


@contextmanager
def opened(
    text: str, *, tracking_uri: str | None = None, allow_factory: bool = False
) -> Iterator[OpenedStudent]:
    """The student that a text names: a file, a champion's folder or its run's, or models:/NAME@champion.

    Raises:
        CheckpointError: there is none, or it cannot be opened.
        ConfigError: MLflow does not have it, or nobody says in which store it is.
        StillhouseError: MLflow does not answer.
    """
    if not text.startswith(REGISTERED):
        yield open_student(exported_file(champion_place(text)), allow_factory=allow_factory)
        return
    # Fetched each time: a store that was made anew has other files under the same version.
    with TemporaryDirectory(dir=node_scratch()) as folder:
        _fetch(text, tracking_uri, Path(folder))
        yield open_student(exported_file(Path(folder)), allow_factory=allow_factory)


def champion_of_run(experiment: str, out: Path | None) -> str:
    """The champion's folder of an experiment that ran; `out` is its output folder, by default the file's.

    Raises:
        ConfigError: there is no such experiment, or its folder holds no champion.
    """
    loaded = load_experiment(experiment, overrides=Overrides(out=out), check_paths=False)
    folder = out_folder(loaded) / CHAMPION_FOLDER
    if not (folder / CARD_FILE).is_file():
        raise ConfigError(
            f"{folder} holds no exported student: {loaded.config.name} has not come to its end there; run "
            f"it first, or give its --out: stillhouse run {loaded.source}"
        )
    return str(folder)


def _fetch(uri: str, tracking_uri: str | None, folder: Path) -> None:
    """Bring the files of a registered student into a folder."""
    store = _store(uri, tracking_uri)
    # Late: MLflow takes as long to import as torch, and files need it not.
    from orchestrator.tracking.stored_weights import fetch_student, pinned_uri

    is_pinned = "@" not in uri and uri.rpartition("/")[2].isdigit()
    fetch_student(uri if is_pinned else pinned_uri(uri, store=store), store=store, folder=folder)


def _store(uri: str, given: str | None) -> str:
    """The MLflow store that is to have it.

    Raises:
        ConfigError: none is named and there is not just one below ./out, or what is named is none.
    """
    named = given or os.environ.get("MLFLOW_TRACKING_URI")
    if named:
        folder = expanded(named)
        if (folder / _STORE).is_file():  # the output folder of a run
            return default_tracking_uri(folder)
        try:
            return absolute_tracking_uri(named)
        except ValueError as error:
            raise ConfigError(f"MLflow store {named!r}, where {uri} is to be: {error}") from error
    found = sorted(Path(_RUNS).glob(f"*/{_STORE}"))
    if len(found) == 1:
        return default_tracking_uri(found[0].parent)
    there = f"{len(found)} runs below ./{_RUNS} have one" if found else f"no run below ./{_RUNS} has one"
    raise ConfigError(
        f"{uri} is in an MLflow store, and nobody says in which ({there}); give --tracking-uri, an address "
        "or the output folder of a run, or set MLFLOW_TRACKING_URI"
    )
