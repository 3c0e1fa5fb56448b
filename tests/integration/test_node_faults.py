"""A node is lost under a running search, and one comes: three nodes on this machine."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.state import list_actors

from orchestrator.pipeline.workers import Workers
from tests.integration.slot_experiments import EPOCHS, WORKER, shaped, slots_of
from tests.integration.three_node_cluster import three_nodes
from tests.integration.watched_search import (
    Search,
    ends_of,
    epochs_of,
    events_in,
    meanwhile,
    space_of,
    wait_for_epochs,
)
from trainables.slots.pool import SlotPool

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def node_of_the_slot(cluster: Cluster) -> Any:
    (worker,) = list_actors(filters=[("class_name", "=", WORKER), ("state", "=", "ALIVE")], detail=True)
    (node,) = [node for node in cluster.worker_nodes if node.node_id == worker.node_id]
    return node


def slots_that_are_up(workers: Workers) -> int:
    return len(ray.get(workers.broker.slots.remote()))


def most_at_once(events: list[dict[str, Any]]) -> int:
    """Trials that were running together, at most."""
    changes = {"trial_started": 1, "trial_ended": -1}
    return max(itertools.accumulate(changes.get(event["kind"], 0) for event in events))


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    with three_nodes() as cluster:
        yield cluster


def test_slots_move_off_a_lost_node_which_is_no_fault_of_theirs(
    nodes: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A slot that is to blame for its end would not be started again.
    monkeypatch.setattr("orchestrator.pipeline.workers.SlotPool", partial(SlotPool, max_restarts=0))
    experiment = shaped(0.2, slots=1)
    with slots_of(experiment, tmp_path) as workers:
        search = Search(workers, experiment, space_of(batch_size=[50, 64]), tmp_path)

        def lose_a_node() -> None:
            wait_for_epochs(tmp_path, 3)
            nodes.remove_node(node_of_the_slot(nodes), allow_graceful=False)
            assert not ends_of(events_in(tmp_path)), "the node was lost too late to matter"

        with meanwhile(lose_a_node):
            events = search.run()
    assert [end["status"] for end in ends_of(events).values()] == ["completed"] * 2
    assert set(epochs_of(events).values()) == {1}
    assert len(epochs_of(events)) == 2 * EPOCHS
    assert len(set(search.told_to_tune)) == len(search.told_to_tune)


def test_a_new_node_gets_a_slot_and_the_slot_trials(nodes: Cluster, tmp_path: Path) -> None:
    assert len(nodes.worker_nodes) == 1
    experiment = shaped(0.4).with_overrides(budget={"trials": 6})
    with slots_of(experiment, tmp_path) as workers:
        assert workers.plan.slots == 1
        space = space_of(batch_size=[50, 64, 80, 100, 132, 200])
        search = Search(workers, experiment, space, tmp_path)
        with ThreadPoolExecutor(1) as beside:
            searching = beside.submit(search.run)
            wait_for_epochs(tmp_path, 1)
            assert slots_that_are_up(workers) == 1
            nodes.add_node(num_cpus=1)  # which Ray does in the main thread only
            events = searching.result()
        assert slots_that_are_up(workers) == 2
    assert [end["status"] for end in ends_of(events).values()] == ["completed"] * 6
    assert most_at_once(events) == 2
