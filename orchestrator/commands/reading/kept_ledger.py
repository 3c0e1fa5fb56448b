"""The ledger that commands read which train nothing."""

from __future__ import annotations

from orchestrator.config.loading import LoadedExperiment
from orchestrator.config.paths import out_folder
from orchestrator.records.ledger import Ledger
from trainables.errors import ConfigError


def kept_ledger(loaded: LoadedExperiment) -> Ledger:
    """The ledger of an experiment, closed: for reading alone, also while a run writes it.

    Raises:
        ConfigError: its folder holds no run.
    """
    folder = out_folder(loaded)
    if not (folder / "ledger.jsonl").exists():  # it would be made
        raise ConfigError(f"{folder} holds no run of {loaded.config.name}; run it first, or give its --out")
    ledger = Ledger(folder)
    ledger.close()
    return ledger
