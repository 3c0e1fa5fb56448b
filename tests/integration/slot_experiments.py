"""One experiment on slots of any shape: what tests of workers, controllers and nodes share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from orchestrator.config.schema import ExperimentConfig
from orchestrator.pipeline.workers import Workers
from orchestrator.terminal.console import Console
from tests.integration.watched_search import experiment_of

WORKER: Final = "RayTrainWorker"
CONTROLLER: Final = "TrainController"
EPOCHS: Final = 5
# A state after epochs 2 and 4: what is killed in epoch 4 goes on from 2, and epoch 3 is trained again.
TRAINING = {"epochs": EPOCHS, "checkpoint_every": 2}


def shaped(step_s: float = 0.05, **cluster: Any) -> ExperimentConfig:
    """An experiment on slots of this shape, with a student that takes its time for each batch."""
    student = {
        "factory": "tests.integration.fault_students:slow",
        "arguments": {"seconds": step_s, "diary": ""},
    }
    return experiment_of(student, **TRAINING).with_overrides(
        cluster={"gpus_per_worker": 0, "students_per_slot": 1, **cluster}
    )


@contextmanager
def slots_of(experiment: ExperimentConfig, folder: Path) -> Iterator[Workers]:
    with Workers(experiment, folder, Console(json_only=True)) as workers:
        workers.start_slots()
        yield workers
