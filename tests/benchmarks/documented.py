"""The documented way to tune a trainer: a Tune function that fits a `TorchTrainer`; here with no-op epochs.

Ray's guide "Hyperparameter Tuning with Ray Tune" (Ray Train user guides, 2.60) has this recipe.
"""

from __future__ import annotations

import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray import tune
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from tests.benchmarks.slot_searches import EPOCHS


def no_op_epochs(config: dict[str, Any]) -> None:
    """Ray Train's loop function: reports, and trains nothing."""
    for epoch in range(1, config["epochs"] + 1):
        ray.train.report({"epoch": epoch, "loss": config["lr"] / epoch})


def documented_trial(config: dict[str, Any]) -> None:
    """Tune's function: one trainer a trial, whose worker is one CPU."""
    TorchTrainer(
        no_op_epochs,
        train_loop_config={"lr": config["lr"], "epochs": config["epochs"]},
        scaling_config=ray.train.ScalingConfig(num_workers=1),
        run_config=ray.train.RunConfig(
            name=f"train-trial_id={tune.get_context().get_trial_id()}",
            storage_path=config["storage"],
            # Outside a trial its constructor raises.
            callbacks=[TuneReportCallback()],  # type: ignore[no-untyped-call, list-item]
        ),
    ).fit()


class _Ends(tune.Callback):
    """Notes when trials end, by the driver's monotonic clock."""

    def __init__(self) -> None:
        self.ended_s: list[float] = []

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.ended_s.append(time.monotonic())


def documented_trials_s(trials: int, folder: Path) -> list[float]:
    """Seconds from the end of one trial to the end of the next, in the current Ray session.

    The trials run one at a time; of the first one, which also waits for the Tuner's start, nothing is told.

    Raises:
        RuntimeError: a trial did not make all its reports.
    """
    # As from a user's script: the functions travel by value, and workers import what they need and no more.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]
    ends = _Ends()
    tuner = tune.Tuner(
        documented_trial,
        param_space={"lr": tune.loguniform(1e-3, 1e-1), "epochs": EPOCHS, "storage": str(folder / "train")},
        tune_config=tune.TuneConfig(metric="loss", mode="min", num_samples=trials, max_concurrent_trials=1),
        run_config=tune.RunConfig(
            name="documented", storage_path=str(folder / "tune"), verbose=0, callbacks=[ends]
        ),
    )
    results = tuner.fit()
    ended = [results[number] for number in range(len(results))]
    reports = [(result.metrics or {}).get("training_iteration") for result in ended]
    if results.errors or reports != [EPOCHS] * trials:
        raise RuntimeError(
            f"the documented trials made {reports} reports instead of {EPOCHS} each; {results.errors}"
        )
    return [after - before for before, after in pairwise(ends.ended_s)]
