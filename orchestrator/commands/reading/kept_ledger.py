"""The ledger that commands read which train nothing."""

from __future__ import annotations

from orchestrator.config.loading import LoadedExperiment
from orchestrator.config.paths import folder_of_run
from orchestrator.records.ledger import Ledger


def kept_ledger(loaded: LoadedExperiment) -> Ledger:
    """The ledger of an experiment, closed: for reading alone, also while a run writes it.

    Raises:
        ConfigError: its folder holds no run.
    """
    ledger = Ledger(folder_of_run(loaded))
    ledger.close()
    return ledger
