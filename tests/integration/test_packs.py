"""Searches whose slots train several students at once, on real slots; workers that die are among them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from cluster.session import connect
from orchestrator.config.schema import ExperimentConfig
from orchestrator.pipeline.workers import Workers
from search_spaces.space import SpaceConfig
from tests.integration.slot_experiments import WORKER, slots_of
from tests.integration.watched_search import (
    Search,
    ends_of,
    epochs_of,
    events_in,
    experiment_of,
    kill,
    meanwhile,
    space_of,
    wait_for_epochs,
)
from tests.unit.trainables.training.packs.packed_courses import apart
from trainables.config.metrics import LANES

pytestmark = pytest.mark.ray

EPOCHS = 5
RATES = [0.02, 0.03, 0.04, 0.05, 0.06, 0.07]


def packed(step_s: float = 0.0, **cluster: Any) -> ExperimentConfig:
    """At most four students at once; those that take their time for each batch have another network."""
    slow = {"factory": "tests.integration.fault_students:slow", "arguments": {"seconds": step_s, "diary": ""}}
    student = slow if step_s else {"name": "convnet", "width": 4}
    shape = {"slots": 1, "gpus_per_worker": 0, "students_per_slot": 4, **cluster}
    return experiment_of(student, epochs=EPOCHS, checkpoint_every=2).with_overrides(
        cluster=shape, budget={"trials": len(RATES)}
    )


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with connect("local", cpus=2), slots_of(packed(), tmp_path_factory.mktemp("slots")) as started:
        yield started


def search_of(workers: Workers, folder: Path, *, space: SpaceConfig, step_s: float = 0.0) -> Search:
    return Search(workers, packed(step_s), space, folder)


def lanes_of(events: list[dict[str, Any]]) -> dict[str, list[float | None]]:
    lanes: dict[str, list[float | None]] = {}
    for event in events:
        if event["kind"] == "epoch":
            lanes.setdefault(event["trial"], []).append(event["metrics"].get(LANES))
    return lanes


def test_a_search_trains_its_students_together(workers: Workers, tmp_path: Path) -> None:
    events = search_of(workers, tmp_path / "search", space=space_of(lr=RATES)).run()
    ends = ends_of(events)
    assert [end["status"] for end in ends.values()] == ["completed"] * len(RATES)
    assert set(epochs_of(events).values()) == {1}
    lanes = lanes_of(events)
    assert all(None not in of_trial for of_trial in lanes.values())
    assert max(number for of_trial in lanes.values() for number in of_trial if number) == 4
    said = {event["precision"] for event in events if event["kind"] == "epoch"}
    assert said == {"fp32 (asked for), in a pack"}


def test_asha_stops_students_of_a_pack_and_others_take_their_lanes(workers: Workers, tmp_path: Path) -> None:
    space = space_of(lr=RATES)
    halving = SpaceConfig.from_plain(
        {**space.plain(), "scheduler": {"name": "asha", "grace_period": 1, "reduction_factor": 2}}
    )
    events = search_of(workers, tmp_path / "asha", space=halving).run()
    ends = ends_of(events)
    assert len(ends) == len(RATES)
    assert {end["status"] for end in ends.values()} == {"completed", "pruned"}
    assert set(epochs_of(events).values()) == {1}


def test_a_slot_that_is_killed_goes_on_with_its_students(workers: Workers, tmp_path: Path) -> None:
    """They are trained alone from then on: whichever of them killed it takes no other with it again."""
    space, folder = space_of(lr=RATES[:3]), tmp_path / "killed"
    search = search_of(workers, folder, space=space, step_s=0.1)

    def act() -> None:
        wait_for_epochs(folder, 7)
        kill(WORKER)

    with meanwhile(act):
        events = search.run()
    assert [end["status"] for end in ends_of(events).values()] == ["completed"] * 3
    assert set(epochs_of(events).values()) == {1}
    assert {e["precision"] for e in events if e["kind"] == "epoch" and e["epoch"] == EPOCHS} == {
        "fp32 (asked for), begun in a pack"
    }
    whole = replace(search, folder=tmp_path / "whole")
    assert [end["status"] for end in ends_of(whole.run()).values()] == ["completed"] * 3
    assert same_students(events, events_in(whole.folder))


def same_students(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    """Whether both searches' students end with the same weights, to rounding; by their rates."""

    def weights(events: list[dict[str, Any]]) -> dict[float, Any]:
        rates = {e["trial"]: e["parameters"]["training.lr"] for e in events if e["kind"] == "trial_started"}
        return {rates[trial]: load_file(end["checkpoint"]) for trial, end in ends_of(events).items()}

    own, others = weights(one), weights(other)
    return own.keys() == others.keys() and all(apart(own[rate], others[rate]) < 1e-3 for rate in own)


PAUSING = {
    "hyperband": {"name": "hyperband", "reduction_factor": 3},
    "pbt": {"name": "pbt", "perturbation_interval": 2, "quantile_fraction": 0.34},
    "median": {"name": "median", "grace_period": 2, "min_samples_required": 1},
}


@pytest.mark.parametrize("scheduler", PAUSING.values(), ids=PAUSING)
def test_students_that_pause_and_fork_do_so_in_packs(
    workers: Workers, tmp_path: Path, scheduler: dict[str, Any]
) -> None:
    rates = [{"training.lr": rate} for rate in (*RATES[:4], 2e-4, 1.01e-4)]
    space = SpaceConfig.from_plain(
        {
            "name": "rates",
            "objectives": {"ce": {}},
            "training": {"lr": {"loguniform": [1e-4, 1e-1]}},
            "search": {"algorithm": "random", "points_to_evaluate": rates},
            "scheduler": scheduler,
        }
    )
    events = search_of(workers, tmp_path / scheduler["name"], space=space).run()
    ends = ends_of(events)
    assert {end["status"] for end in ends.values()} <= {"completed", "pruned"}
    assert set(epochs_of(events).values()) == {1}
    lanes = [number for of_trial in lanes_of(events).values() for number in of_trial]
    assert None not in lanes
    assert max(number for number in lanes if number) > 1
    if scheduler["name"] == "pbt":
        forks = [e for e in events if e["kind"] == "trial_started" and e["spec"].get("fork")]
        assert forks
        for event in forks:
            first = event["spec"]["fork"]["epoch"] + 1
            told = sorted(epoch for trial, epoch in epochs_of(events) if trial == event["trial"])
            assert told == list(range(first, first + len(told)))
