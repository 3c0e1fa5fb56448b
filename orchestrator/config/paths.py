"""Where a run writes and where its record is; nothing here imports MLflow, Ray or torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from orchestrator.config.loading import LoadedExperiment
from orchestrator.config.tracking_uri import absolute_tracking_uri, default_tracking_uri
from trainables.errors import ConfigError
from trainables.export.model_card import CARD_FILE
from trainables.export.stated import EXPORTED_SUFFIXES
from trainables.local_files import expanded

HOME_FOLDER = "stillhouse"
ARTIFACTS = "mlartifacts"
"""Name of the folder of MLflow's files."""
REGISTERED = "models:/"
"""How an address of MLflow's model registry begins."""
CHAMPION_FOLDER = "champion"
"""Below the output folder of a run."""
_IN_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def out_folder(loaded: LoadedExperiment, environment: Mapping[str, str] = os.environ) -> Path:
    """Where the run writes, absolute.

    A relative folder starts at the working folder; in a Ray job, whose working folder is a copy that goes
    away, it starts at ~/stillhouse.
    """
    folder = expanded(loaded.config.out_folder)
    if _IN_A_JOB in environment and not folder.is_absolute():
        return Path.home() / HOME_FOLDER / folder
    return folder.absolute()


def folder_of_run(loaded: LoadedExperiment) -> Path:
    """The output folder of a run that has begun: opening its ledger makes none.

    Raises:
        ConfigError: it holds no run.
    """
    folder = out_folder(loaded)
    if not (folder / "ledger.jsonl").exists():
        raise ConfigError(f"{folder} holds no run of {loaded.config.name}; run it first, or give its --out")
    return folder


def imported_file(loaded: LoadedExperiment) -> Path:
    """Where it is kept what is known of a teacher whose logits were imported."""
    return out_folder(loaded) / "teacher" / "imported.json"


def tracking_uri(loaded: LoadedExperiment) -> str:
    """The MLflow store of an experiment."""
    written = loaded.config.record.tracking_uri
    return absolute_tracking_uri(written) if written else default_tracking_uri(out_folder(loaded))


def artifact_folder(tracking_uri: str, out: Path) -> Path:
    """Where MLflow keeps the files of a new experiment in a local store.

    In the output folder, as the store itself; beside a store that lies elsewhere, which other runs may share.
    """
    database = Path(tracking_uri.removeprefix("sqlite:///"))
    is_elsewhere = database.is_absolute() and not database.is_relative_to(out)
    return (database.parent if is_elsewhere else out).absolute() / ARTIFACTS


def experiment_name(loaded: LoadedExperiment) -> str:
    """The name of the MLflow experiment."""
    return loaded.config.record.experiment_name or f"stillhouse/{loaded.config.name}"


def names_student(text: str) -> bool:
    """Whether a text names a file or folder of an exported student, or one in MLflow."""
    if text.startswith(REGISTERED):
        return True
    place = champion_place(text)
    return place.suffix in EXPORTED_SUFFIXES or (place / CARD_FILE).is_file()


def champion_place(text: str) -> Path:
    """The place that a text names; of a run's output folder, the champion's folder in it."""
    place = expanded(text)
    inside = place / CHAMPION_FOLDER
    return inside if (inside / CARD_FILE).is_file() else place
