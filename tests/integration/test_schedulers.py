"""Every scheduler on warm slots, with real training; its decisions stand in the ledger."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.session import connect
from orchestrator.config.schema import ExperimentConfig
from orchestrator.pipeline.workers import Workers
from orchestrator.records.events import EpochEnded
from orchestrator.records.ledger import Ledger, TrialRecord
from orchestrator.search.driver import SearchTask, run_search
from orchestrator.search.trial_specs import Composer
from orchestrator.terminal.console import Console
from search_spaces.space import SpaceConfig
from trainables.config import TrialSpec, WorkbenchSpec
from trainables.slots.warm_state import WarmState
from trainables.training.loop import train
from trainables.training.progress.checkpoint_paths import kept_state
from trainables.training.progress.checkpoints import CheckpointFolder

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TRIALS, EPOCHS = 6, 9
FORKED = re.compile(r"replaced by (\S+), which forked from (\S+) after epoch (\d+)")
OF_ALL_NETWORKS = (
    "selection/accuracy",
    "selection/peer1_accuracy",
    "selection/ensemble_accuracy",
    "train/peer1_ce",
)
"""Figures of a student and its peer: what hangs on the weights of both."""


def experiment() -> ExperimentConfig:
    return ExperimentConfig.from_plain(
        {
            "name": "schedulers",
            "data": {"name": "digits", "train_limit": 200, "selection_fraction": 0.2},
            "teacher": {"model": {"name": "mlp"}},
            "student": {"name": "mlp", "width": 8},
            "views": {},
            "training": {"epochs": EPOCHS, "batch_size": 32, "precision": "fp32"},
            "space": "written below",
            "budget": {"trials": TRIALS},
            "cluster": {"slots": 2, "gpus_per_worker": 0, "students_per_slot": 1},
        }
    )


def space(scheduler: dict[str, Any], first_rates: Sequence[float], objective: str) -> SpaceConfig:
    return SpaceConfig.from_plain(
        {
            "name": "rates",
            "objectives": {objective: {}},
            "training": {"lr": {"loguniform": [1e-4, 1e-1]}},
            "search": {
                "algorithm": "random",
                "points_to_evaluate": [{"training.lr": lr} for lr in first_rates],
            },
            "scheduler": scheduler,
        }
    )


@dataclass
class SearchSetting:
    workers: Workers
    folder: Path

    def search(
        self,
        scheduler: dict[str, Any],
        ledger: Ledger,
        *,
        first_rates: Sequence[float] = (),
        objective: str = "ce",
    ) -> dict[str, Any]:
        name = str(scheduler["name"])
        task = SearchTask(
            Composer(experiment(), space(scheduler, first_rates, objective), self.workbench(), name),
            self.workers.broker,
            self.workers.plan.slots,
            self.folder / "tune",
        )
        return run_search(task, ledger, Console())

    def workbench(self) -> WorkbenchSpec:
        config = experiment()
        return WorkbenchSpec(
            data=config.data,
            views=config.views,
            view_seed=0,
            cache_uri=None,
            cache_manifest=None,
            checkpoints=str(self.folder / "students"),
        )


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchSetting]:
    folder = tmp_path_factory.mktemp("schedulers")
    with connect("local", cpus=2), Workers(experiment(), folder, Console()) as workers:
        workers.start_slots()
        yield SearchSetting(workers, folder)


def epochs_told(ledger: Ledger, trial: str) -> list[int]:
    return [event.epoch for event in ledger.events_of(EpochEnded) if event.trial == trial]


def test_median_stopping_names_itself_and_the_epoch(setting: SearchSetting, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    scheduler = {"name": "median", "grace_period": 2, "min_samples_required": 1}
    # Whichever slot is the faster, a good student has been heard to its end before a bad one starts.
    ended = setting.search(scheduler, ledger, first_rates=(0.1, 0.05, 1.01e-4, 1.02e-4))
    assert ended["completed"] + ended["pruned"] == TRIALS
    stopped = [r for r in ledger.trials() if r.status == "pruned"]
    assert {1.01e-4, 1.02e-4} <= {record.parameters["training.lr"] for record in stopped}
    for record in stopped:
        assert record.reason == f"stopped by median after epoch {record.epochs}"
        assert 2 <= record.epochs < EPOCHS


def test_hyperband_pauses_halves_and_tells_every_epoch_once(setting: SearchSetting, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ended = setting.search({"name": "hyperband", "reduction_factor": 3}, ledger)
    assert ended["failed"] == 0
    assert ended["completed"] >= 1
    assert ended["pruned"] >= 1
    for record in ledger.trials():
        assert epochs_told(ledger, record.trial) == list(range(1, record.epochs + 1))
        if record.status == "pruned":
            assert record.reason == f"stopped by hyperband after epoch {record.epochs}"
    assert states_of(setting, [record.trial for record in ledger.trials()]) == []


def test_pbt_forks_all_networks_with_their_optimisers_and_makes_the_same_forks_again(
    setting: SearchSetting, tmp_path: Path
) -> None:
    scheduler = {"name": "pbt", "perturbation_interval": 3, "quantile_fraction": 0.34}
    # Whoever is forked from has learned something: what is not taken over would be seen in the losses.
    of_two: dict[str, Any] = {"objective": "dml", "first_rates": (0.1, 0.07, 0.05, 3e-4, 2e-4, 1.01e-4)}
    ledger = Ledger(tmp_path / "first")
    with pytest.MonkeyPatch.context() as killed:  # a driver that dies in its search sweeps nothing away
        killed.setattr("orchestrator.search.driver.drop_states", lambda *_, **__: 0)
        ended = setting.search(scheduler, ledger, **of_two)
    assert ended["failed"] == 0
    assert 2 <= ended["completed"] <= TRIALS  # forks that are equal in all are one student
    records = {record.trial: record for record in ledger.trials()}
    forks = [record for record in records.values() if record.spec["fork"]]
    assert forks
    for record in forks:
        epoch = record.spec["fork"]["epoch"]
        assert epoch % 3 == 0
        assert epochs_told(ledger, record.trial) == list(range(epoch + 1, record.epochs + 1))
        origin = records[record.spec["fork"]["trial_id"]]
        # A peer that was not taken over would begin at chance, as its first ancestor did.
        assert peer_loss(ledger, record.trial, epoch + 1) < peer_loss(
            ledger, line_of(records, origin)[0].trial, 1
        )
    replaced = [FORKED.fullmatch(r.reason or "") for r in records.values() if r.status == "pruned"]
    assert {m[1] for m in replaced if m} == {record.trial for record in forks}

    finished = next(record for record in forks if record.status == "completed")
    assert_is_the_same_alone(setting, records, finished, tmp_path / "alone")

    # The driver is gone after the first meetings: the next one hears what the ledger has, and forks alike.
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    at = next(n for n, event in enumerate(ledger.events()) if event.plain().get("spec", {}).get("fork")) + 1
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "ledger.jsonl").write_bytes(b"".join(lines[:at]))
    again = Ledger(tmp_path / "again")
    setting.search(scheduler, again, **of_two)
    assert {r.trial: r.status for r in again.trials()} == {t: r.status for t, r in records.items()}
    assert {r.trial: figures_of_all(r.final) for r in again.trials()} == {
        t: figures_of_all(r.final) for t, r in records.items()
    }
    assert states_of(setting, records) == []


def line_of(records: dict[str, TrialRecord], fork: TrialRecord) -> list[TrialRecord]:
    """A trial after all from which it forked off, the first ancestor first."""
    line = [fork]
    while line[0].spec["fork"]:
        line.insert(0, records[line[0].spec["fork"]["trial_id"]])
    return line


def states_of(setting: SearchSetting, trials: Iterable[str]) -> list[Path]:
    return [path for trial in trials for path in (setting.folder / "students" / trial).glob("*.pt")]


def figures_of_all(metrics: dict[str, float]) -> list[float | None]:
    return [metrics.get(name) for name in OF_ALL_NETWORKS]


def peer_loss(ledger: Ledger, trial: str, epoch: int) -> float:
    events = ledger.events_of(EpochEnded)
    (metrics,) = (event.metrics for event in events if (event.trial, event.epoch) == (trial, epoch))
    return metrics["train/peer1_ce"]


def assert_is_the_same_alone(
    setting: SearchSetting, records: dict[str, TrialRecord], fork: TrialRecord, folder: Path
) -> None:
    """A fork, trained again here after its ancestors, ends with the same figures of all networks."""
    line = line_of(records, fork)
    torch.set_num_threads(1)
    warm, told = WarmState(torch.device("cpu")), dict[int, dict[str, float]]()
    for record in line:
        spec = TrialSpec.from_plain(record.spec)
        origin = kept_state(folder / spec.fork.trial_id, spec.fork.epoch) if spec.fork else None
        train(
            warm.course(spec, setting.workbench()),
            warm.workbench(setting.workbench()),
            on_epoch=told.__setitem__,
            files=CheckpointFolder(
                folder / spec.trial_id, spec_digest=spec.digest(), keep_all=True, origin=origin
            ),
        )
    assert figures_of_all(told[EPOCHS]) == figures_of_all(fork.final)
    assert None not in figures_of_all(fork.final)
