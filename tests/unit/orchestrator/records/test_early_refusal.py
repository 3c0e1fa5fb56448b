"""Constraints that nobody meets are told from the ledger alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.loading import load_experiment
from orchestrator.config.overrides import Overrides
from orchestrator.config.schema import ExperimentConfig
from orchestrator.records.events import FiguresAdded, TrialEnded, TrialStarted
from orchestrator.records.ledger import Ledger
from orchestrator.records.picking.early_refusal import require_somebody
from orchestrator.records.picking.nearest_miss import NobodyFits
from trainables.config import Role


def experiment(where: str) -> ExperimentConfig:
    overrides = Overrides(where=where, finalists=1)
    config = load_experiment("digits", overrides=overrides, check_paths=False).config
    return config.with_overrides(budget=config.budget.with_overrides(seeds=2))


def trained(ledger: Ledger, trial: str, role: Role, accuracy: float, seed: int = 0, **more: Any) -> None:
    best = {"selection/accuracy": accuracy}
    spec = {"seed": seed, "student": {"width": 4}, "training": {"epochs": 5}}
    ledger.append(
        TrialStarted(
            trial=trial, role=role, search="s", objective=more.pop("objective", "kd"), parameters={},
            spec=spec, **more,
        )
    )  # fmt: skip
    ledger.append(
        TrialEnded(
            trial=trial, status="completed", epochs=5, final=best, reason=None, best_epoch=1, best=best,
            checkpoint=None,
        )
    )  # fmt: skip


def measured(ledger: Ledger, trial: str) -> None:
    figures = {"params": 500.0, "size_bytes": 2000.0, "latency_ms": 1.0, "test_acc": 0.99}
    ledger.append(FiguresAdded(trial=trial, figures=figures))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """A search of one trial, that is a finalist with two seeds beside its control."""
    ledger = Ledger(tmp_path)
    trained(ledger, "kd-a", Role.SEARCH, 0.9)
    for seed in (0, 1):
        trained(ledger, f"kd-a-seed{seed}", Role.FINALIST, 0.88, seed, repeats="kd-a")
        trained(ledger, f"ce-seed{seed}", Role.BASELINE, 0.8, seed, repeats="ce", objective="ce")
    for trial in ("kd-a", "kd-a-seed0", "kd-a-seed1"):
        measured(ledger, trial)
    return ledger


def test_costs_that_no_trial_keeps_are_refused(ledger: Ledger) -> None:
    with pytest.raises(NobodyFits, match="none of 1 students meets params <= 10"):
        require_somebody(ledger, experiment("params <= 10"), "s", each_objective=False)


@pytest.mark.parametrize("where", ["accuracy >= 0.89", "selection_gain >= 0.1"])
def test_means_that_no_finalist_reaches_are_refused(ledger: Ledger, where: str) -> None:
    with pytest.raises(NobodyFits, match="none of 1 students meets selection_"):
        require_somebody(ledger, experiment(where), "s", each_objective=False)


@pytest.mark.parametrize("where", ["accuracy >= 0.87", "selection_gain >= 0.07 and params <= 500"])
def test_where_somebody_fits_nothing_is_said(ledger: Ledger, where: str) -> None:
    require_somebody(ledger, experiment(where), "s", each_objective=False)


def test_where_seeds_are_still_to_be_trained_the_run_decides(ledger: Ledger) -> None:
    config = experiment("accuracy >= 0.89")
    longer = config.with_overrides(budget=config.budget.with_overrides(seeds=3))
    require_somebody(ledger, longer, "s", each_objective=False)


def test_where_costs_are_not_known_the_run_decides(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "other")
    trained(ledger, "kd-a", Role.SEARCH, 0.9)
    require_somebody(ledger, experiment("params <= 10"), "s", each_objective=False)
