"""Environment variables that Ray reads in the driver and hands on to its controllers and workers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

DRIVER_SETTINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        # One actor less for each worker group, and no C++ stack trace each time a group is closed.
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
        # The controller's polling interval: a checkpoint reported with the default of 2 s costs 2 s.
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        # A cold node needs more than the default 60 s to import torch eight times at once; the group would
        # then restart for ever.
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
        # Relative paths, and SQLite addresses, keep their meaning inside trials.
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        # No CSV, JSON and TensorBoard files beside the records that the driver keeps itself.
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        # Tune's newer output prints its tables even when told to be silent.
        "RAY_AIR_NEW_OUTPUT": "0",
        # Ctrl-C ends a search at once: the caller keeps the state.
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        # Seconds between snapshots of a search: with "auto" many short trials spend their time on snapshots.
        "TUNE_GLOBAL_CHECKPOINT_S": "30",
    }
)


@dataclass(frozen=True)
class WorkerSetup:
    """What each worker process of a session is given."""

    hook: str | None = None
    """A function that it calls when it starts, as `module.function`, before anything else of ours."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables."""


NOTHING_MORE: Final = WorkerSetup()


def missing_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The settings that the user has not made; a value that is already there wins."""
    return {name: value for name, value in DRIVER_SETTINGS.items() if name not in environment}


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Sets variables of this process, and puts back what was there before at the end."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
